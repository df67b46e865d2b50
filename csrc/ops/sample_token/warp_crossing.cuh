// Where a running sum over the lanes of a warp first exceeds a level.
#pragma once

#include "cuda/reduce.cuh"

namespace suder::cuda {

struct WarpCrossing {
  int lane;       // -1: no weight is above 0
  bool found;     // false: the sum stays below, and it is the last lane with a weight above 0
  double before;  // the sum of the lanes before it
  double total;
};

__device__ inline WarpCrossing cross(double weight, double level) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  double sum = weight;
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const int from = lane >= distance ? lane - distance : lane;
    const double below = __shfl_sync(kAllLanes, sum, from);
    if (lane >= distance) sum += below;
  }
  const unsigned over = __ballot_sync(kAllLanes, weight > 0.0 && sum > level);
  const unsigned possible = __ballot_sync(kAllLanes, weight > 0.0);
  const int place = over != 0 ? __ffs(static_cast<int>(over)) - 1
                              : kWarpSize - 1 - __clz(static_cast<int>(possible));
  return {place, over != 0, __shfl_sync(kAllLanes, sum - weight, place < 0 ? 0 : place),
          __shfl_sync(kAllLanes, sum, kWarpSize - 1)};
}

}  // namespace suder::cuda
