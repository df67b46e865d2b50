// One read of each row of logits: online log-sum-exp, target logit, entropy. One block a row (and
// a split of it); a thread has several loads of 16 bytes under way and joins with the others at the
// end only.
#include <algorithm>
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/logits.h"
#include "cuda/reduce.cuh"
#include "cuda/row_results.cuh"
#include "cuda/vec.cuh"
#include "ops/logprob/add_pack.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {
namespace {

// Bytes on their way to a multiprocessor: 64 KiB, several times what its part of the memory's
// bandwidth times the latency asks for.
constexpr int kMostThreads = 256, kPacks = 4;
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

// What the options do to the logits of one pack, of which `left` lie within the row; the others
// become -inf.
template <typename T>
__device__ void finish(float (&z)[kPack<T>], std::int64_t column, int left,
                       const StatsArguments<T>& a) {
  if (a.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) z[i] += i < left ? a.bias[column + i] : 0.0f;
  }
  if (a.final_logit.softcap > 0.0f) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) z[i] = a.final_logit.capped(z[i]);
  }
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) z[i] = i < left ? z[i] : -INFINITY;
}

template <typename T, bool kEntropy>
__global__ void __launch_bounds__(kMostThreads, 4) logits_stats_kernel(StatsArguments<T> a) {
  const std::int64_t row = blockIdx.x, begin = blockIdx.y * a.split_columns;
  const std::int64_t end = begin + a.split_columns < a.cols ? begin + a.split_columns : a.cols;
  const T* logits = a.logits + row * a.stride;
  const float inverse_temperature = a.final_logit.inverse_temperature;
  const float scale = inverse_temperature * kLog2E;
  const std::int64_t step = std::int64_t{blockDim.x} * kPack<T>;
  RowState state;
  for (std::int64_t column = begin + threadIdx.x * kPack<T>; column < end;
       column += kPacks * step) {
    float z[kPack<T>];
    // Who adds what, and in which order, is the same for rows that are not aligned.
    if (a.aligned && column + (kPacks - 1) * step + kPack<T> <= end) {
      uint4 raw[kPacks];  // all under way before the first is looked at
#pragma unroll
      for (int k = 0; k < kPacks; ++k) raw[k] = read_16(logits + column + k * step);
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        unpack<T>(raw[k], z);
        finish<T>(z, column + k * step, kPack<T>, a);
        add_pack<kEntropy>(state.lse, z, scale, inverse_temperature);
      }
    } else {
#pragma unroll 1
      for (int k = 0; k < kPacks && column + k * step < end; ++k) {
        const std::int64_t first = column + k * step, left = end - first;
        load_pack(logits, first, end, a.aligned, 0.0f, z);
        finish<T>(z, first, left < kPack<T> ? static_cast<int>(left) : kPack<T>, a);
        add_pack<kEntropy>(state.lse, z, scale, inverse_temperature);
      }
    }
  }
  if (threadIdx.x == 0) {
    const std::int64_t target = a.results.target[row] - a.first_column;
    if (target >= begin && target < end) {
      const float bias = a.bias != nullptr ? a.bias[target] : 0.0f;
      state.target = a.final_logit.capped(to_float(logits[target]) + bias);
    }
  }
  __shared__ float2 shared[kMostThreads / kWarpSize];
  state.lse = reduce_block(state.lse, shared, inverse_temperature);
  if (threadIdx.x != 0) return;
  RowState* place = a.state + blockIdx.y * a.tokens + row;
  if (!a.first) state = merge(*place, state, inverse_temperature);
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
  const auto kernel =
      p.entropy != nullptr ? logits_stats_kernel<T, true> : logits_stats_kernel<T, false>;
  launch(kernel, {static_cast<unsigned>(p.tokens), static_cast<unsigned>(splits)},
         {threads_for<T>(arguments.split_columns, kPacks, kMostThreads)}, 0, stream, arguments);
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
