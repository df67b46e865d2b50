#include "cuda/launch.cuh"
#include "cuda/row_results.cuh"

namespace suder::cuda {
namespace {

// A warp has one row a lane, so that its loads are of neighbouring states; the block's warps share
// the parts of those rows. A thread asks for kAhead parts before it merges the first: what takes
// time here is the way to memory, not the sums.
constexpr int kWarps = 8, kAhead = 8;

__global__ void __launch_bounds__(kWarps* kWarpSize)
    merge_row_states_kernel(RowParts parts, RowResults results) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarpSize + lane;
  const bool real = row < parts.rows;
  // Neighbouring parts are one warp's: their order is that of the vocabulary.
  const std::int64_t each = (parts.parts + kWarps - 1) / kWarps, begin = warp * each;
  const std::int64_t end = begin + each < parts.parts ? begin + each : parts.parts;
  RowState state;
  for (std::int64_t first = begin; first < end; first += kAhead) {
    RowState loaded[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (real && first + i < end) loaded[i] = parts.state[(first + i) * parts.rows + row];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) state = merge(state, loaded[i], results.inverse_temperature);
  }
  __shared__ RowState shared[kWarps][kWarpSize];
  shared[warp][lane] = state;
  __syncthreads();
  if (warp != 0 || !real) return;
  for (int i = 1; i < kWarps; ++i) {
    state = merge(state, shared[i][lane], results.inverse_temperature);
  }
  results.write(row, state);
}

}  // namespace

void merge_row_states(const RowParts& parts, const RowResults& results, std::uintptr_t stream) {
  const auto blocks = static_cast<unsigned>((parts.rows + kWarpSize - 1) / kWarpSize);
  launch(merge_row_states_kernel, {blocks}, {kWarps * kWarpSize}, 0, stream, parts, results);
}

}  // namespace suder::cuda
