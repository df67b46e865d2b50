// A block of threads for each packed sequence, and sums over it in float64: a sequence is short, a
// sum of hundreds of log-probabilities cancels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/reduce.cuh"

namespace suder::cuda {

inline constexpr int kSequenceThreads = 128;

struct TokenRange {
  std::int64_t begin, end;
};

__device__ inline std::int64_t clamp(std::int64_t value, std::int64_t low, std::int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// Kept inside the arrays whatever cu_seqlens holds: nobody has looked at it on the host.
__device__ inline TokenRange sequence_range(const std::int64_t* cu_seqlens, std::int64_t sequence,
                                            std::int64_t tokens) {
  const std::int64_t begin = clamp(cu_seqlens[sequence], 0, tokens);
  return {begin, clamp(cu_seqlens[sequence + 1], begin, tokens)};
}

// The block's sum, the same bits in every thread, whose order of additions is fixed. All threads
// must call it; it may be called again at once.
template <typename T>
__device__ T sum_block(T value) {
  __shared__ T shared[kSequenceThreads / kWarpSize];
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  __syncthreads();  // of the last call nobody reads any more
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T sum = shared[0];
  for (int i = 1; i < kSequenceThreads / kWarpSize; ++i) sum += shared[i];
  return sum;
}

}  // namespace suder::cuda
