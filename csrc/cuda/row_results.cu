#include "cuda/launch.cuh"
#include "cuda/row_results.cuh"

namespace suder::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    merge_row_states_kernel(RowParts parts, RowResults results) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= parts.rows) return;
  RowState state = parts.state[row];
  for (std::int64_t i = 1; i < parts.parts; ++i) {
    state = merge(state, parts.state[i * parts.rows + row], results.inverse_temperature);
  }
  results.write(row, state);
}

}  // namespace

void merge_row_states(const RowParts& parts, const RowResults& results, std::uintptr_t stream) {
  const auto blocks = static_cast<unsigned>((parts.rows + kThreads - 1) / kThreads);
  launch(merge_row_states_kernel, {blocks}, {kThreads}, 0, stream, parts, results);
}

}  // namespace suder::cuda
