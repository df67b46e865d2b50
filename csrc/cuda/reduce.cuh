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

// Adds a value that is not above s.max. Minus infinity adds nothing, also where max is -inf.
__device__ inline void add(OnlineLse& s, float z, float inverse_temperature) {
  if (z == -INFINITY) return;
  const float difference = (z - s.max) * inverse_temperature, e = expf(difference);
  s.sum += e;
  s.weighted += e == 0.0f ? 0.0f : difference * e;  // 0 * -inf is not 0
}

// What one row's reader knows: the log-sum-exp state and the target's logit, NaN until met.
struct RowState {
  OnlineLse lse;
  float target = NAN;
};

__device__ inline RowState merge(const RowState& a, const RowState& b, float inverse_temperature) {
  return {suder::merge(a.lse, b.lse, inverse_temperature), isnan(a.target) ? b.target : a.target};
}
__device__ inline RowState from_lane_below(const RowState& s, int distance) {
  return {{__shfl_down_sync(kAllLanes, s.lse.max, distance),
           __shfl_down_sync(kAllLanes, s.lse.sum, distance),
           __shfl_down_sync(kAllLanes, s.lse.weighted, distance)},
          __shfl_down_sync(kAllLanes, s.target, distance)};
}

// The block's states joined; valid in thread 0. `shared` has one place a warp, and is free again
// only after the next barrier.
__device__ inline RowState reduce_block(RowState state, RowState* shared,
                                        float inverse_temperature) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    state = merge(state, from_lane_below(state, distance), inverse_temperature);
  }
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  if (threadIdx.x % kWarpSize == 0) shared[warp] = state;
  __syncthreads();
  if (threadIdx.x == 0) {
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    for (int i = 1; i < warps; ++i) state = merge(state, shared[i], inverse_temperature);
  }
  return state;
}

__device__ inline float reduce_warp(float value) {  // in every lane, the same bits
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
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

}  // namespace suder::cuda
