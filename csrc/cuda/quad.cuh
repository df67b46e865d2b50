// Exchanges between lanes of a warp, each of which holds a part of every row and of every column of
// a tensor core's sums.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/reduce.cuh"

namespace suder::cuda {

// Among four neighbouring lanes: word k of lane q and word q of lane k change places.
__device__ inline void transpose_quad(std::uint32_t (&words)[4]) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (threadIdx.x & bit) != 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (k & bit) continue;
      std::uint32_t &low = words[k], &high = words[k | bit];
      const std::uint32_t got = __shfl_xor_sync(kAllLanes, upper ? low : high, bit);
      low = upper ? got : low;
      high = upper ? high : got;
    }
  }
}

// Among the eight lanes that are equal modulo 4: lane / 4 gets the sums of values[lane / 4], over
// the lanes in a fixed order.
__device__ inline float2 add_columns(float2 (&values)[8]) {
#pragma unroll
  for (int half = 4; half >= 1; half /= 2) {
    const bool upper = (threadIdx.x & (half * 4)) != 0;
#pragma unroll
    for (int k = 0; k < half; ++k) {
      const float2 low = values[k], high = values[k + half];
      const float x = __shfl_xor_sync(kAllLanes, upper ? low.x : high.x, half * 4);
      const float y = __shfl_xor_sync(kAllLanes, upper ? low.y : high.y, half * 4);
      values[k] = {(upper ? high.x : low.x) + x, (upper ? high.y : low.y) + y};
    }
  }
  return values[0];
}

}  // namespace suder::cuda
