// One read of each row of logits: online log-sum-exp, target logit, entropy. One block a row (and
// a split of it); a thread reads 16 bytes at a time.
#include <algorithm>
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/logits.h"
#include "cuda/reduce.cuh"
#include "cuda/row_results.cuh"
#include "cuda/vec.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {
namespace {

constexpr int kThreads = 512;
constexpr std::int64_t kSplitColumns = 65536;

template <typename T>
struct StatsArguments {
  const T* logits;
  std::int64_t cols, stride, tokens, first_column, split_columns;
  const float* bias;
  bool aligned, first, last;
  FinalLogit final_logit;
  RowState* state;  // [splits, tokens]
  RowResults results;
};

template <typename T>
__device__ void add_pack(RowState& state, float (&z)[kPack<T>], std::int64_t column,
                         const StatsArguments<T>& a, std::int64_t target, std::int64_t end) {
  float top = state.lse.max;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    if (a.bias != nullptr && column + i < end) z[i] += a.bias[column + i];
    z[i] = column + i < end ? a.final_logit.capped(z[i]) : -INFINITY;
    top = z[i] > top ? z[i] : top;
    if (column + i == target && column + i < end) state.target = z[i];
  }
  const float inverse_temperature = a.final_logit.inverse_temperature;
  state.lse = relative_to(state.lse, top, inverse_temperature);
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) add(state.lse, z[i], inverse_temperature);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) logits_stats_kernel(StatsArguments<T> a) {
  const std::int64_t row = blockIdx.x, begin = blockIdx.y * a.split_columns;
  const std::int64_t end = begin + a.split_columns < a.cols ? begin + a.split_columns : a.cols;
  const std::int64_t target = a.results.target[row] - a.first_column;
  const T* logits = a.logits + row * a.stride;
  RowState state;
#pragma unroll 2
  for (std::int64_t column = begin + threadIdx.x * kPack<T>; column < end;
       column += kThreads * kPack<T>) {
    float z[kPack<T>];
    load_pack(logits, column, end, a.aligned, -INFINITY, z);
    add_pack(state, z, column, a, target, end);
  }
  __shared__ RowState shared[kThreads / kWarpSize];
  state = reduce_block(state, shared, a.final_logit.inverse_temperature);
  if (threadIdx.x != 0) return;
  RowState* place = a.state + blockIdx.y * a.tokens + row;
  if (!a.first) state = merge(*place, state, a.final_logit.inverse_temperature);
  if (a.last && gridDim.y == 1) {
    a.results.write(row, state);
  } else {
    *place = state;
  }
}

template <typename T>
void run(const LogitsStats& p, std::int64_t splits, Stream stream) {
  const StatsArguments<T> arguments = {
      static_cast<const T*>(p.logits.data),
      p.logits.cols,
      p.logits.stride,
      p.tokens,
      p.first_column,
      splits == 1 ? std::max<std::int64_t>(p.logits.cols, 1) : kSplitColumns,
      p.bias,
      aligned_rows<T>(p.logits.data, p.logits.stride),
      p.first,
      p.last,
      FinalLogit(p.temperature, p.softcap),
      reinterpret_cast<RowState*>(p.state),
      {p.target, p.ignore_index, p.logprob, p.lse, p.entropy, 1.0f / p.temperature}};
  launch(logits_stats_kernel<T>, {static_cast<unsigned>(p.tokens), static_cast<unsigned>(splits)},
         {kThreads}, 0, stream, arguments);
}

}  // namespace

std::int64_t logits_splits(std::int64_t vocab) {
  return std::max<std::int64_t>(1, (vocab + kSplitColumns - 1) / kSplitColumns);
}

void logits_stats(const LogitsStats& p, Stream stream) {
  if (p.tokens == 0) return;
  const bool whole = p.first && p.last;
  const std::int64_t splits = whole ? logits_splits(p.logits.cols) : 1;
  if ((splits > 1 || !whole) && p.state == nullptr) {
    throw std::invalid_argument("logits_stats: state is absent; rows in parts need it");
  }
  dispatch_dtype(p.dtype, [&]<typename T>() { run<T>(p, splits, stream); });
  if (splits > 1) {
    merge_row_states({reinterpret_cast<const RowState*>(p.state), splits, p.tokens},
                     {p.target, p.ignore_index, p.logprob, p.lse, p.entropy, 1.0f / p.temperature},
                     stream);
  }
}

}  // namespace suder::cuda
