// Reductions of a warp and of a block, in an order fixed by thread numbers alone.
#pragma once

#include <cuda_runtime.h>

#include "common/online_lse.h"

namespace suder::cuda {

inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;
inline constexpr int kWarpSize = 32;

// The same values told relative to a larger (or equal) maximum.
__device__ inline OnlineLse relative_to(const OnlineLse& s, float max, float inverse_temperature) {
  return suder::merge(s, OnlineLse{max, 0.0f, 0.0f}, inverse_temperature);
}

// What one row's reader knows: the log-sum-exp state and the target's logit, NaN until met. Read
// and written 16 bytes at once.
struct alignas(16) RowState {
  OnlineLse lse;
  float target = NAN;
};

__device__ inline RowState merge(const RowState& a, const RowState& b, float inverse_temperature) {
  return {suder::merge(a.lse, b.lse, inverse_temperature), isnan(a.target) ? b.target : a.target};
}

template <typename T>
__device__ T reduce_warp(T value) {  // in every lane, the same bits
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ inline float max_of_warp(float value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// The block's sum in every thread. `shared` has one float a warp; it may be used again after the
// next barrier.
__device__ inline float reduce_block(float value, float* shared) {
  value = reduce_warp(value);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  float sum = 0.0f;
  for (int i = 0; i < warps; ++i) sum += shared[i];
  return sum;
}

// The block's states joined; valid in thread 0. The maximum first, so that each thread has one
// exponential to take, and not one for every step of a tree of merges. `shared` has two floats a
// warp, and is free again only after the next barrier.
__device__ inline OnlineLse reduce_block(OnlineLse s, float2* shared, float inverse_temperature) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  float max = max_of_warp(s.max);
  if (threadIdx.x % kWarpSize == 0) shared[warp].x = max;
  __syncthreads();
  for (int i = 0; i < warps; ++i) max = fmaxf(max, shared[i].x);
  __syncthreads();
  // Where there was nothing but -inf (or NaN) there is no difference to shift by: see online_lse.h.
  if (s.max != -INFINITY) s = relative_to(s, max, inverse_temperature);
  const float2 sums = {reduce_warp(s.sum), reduce_warp(s.weighted)};
  if (threadIdx.x % kWarpSize == 0) shared[warp] = sums;
  __syncthreads();
  OnlineLse result = {max, 0.0f, 0.0f};
  for (int i = 0; i < warps; ++i) {
    result.sum += shared[i].x;
    result.weighted += shared[i].y;
  }
  return result;
}

}  // namespace suder::cuda
