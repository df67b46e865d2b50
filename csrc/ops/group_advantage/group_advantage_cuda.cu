// One warp a group, in float64: a group is a handful of rewards that may nearly agree.
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/reduce.cuh"

namespace suder::cuda {
namespace {

constexpr int kWarps = 4;
constexpr double kStdEpsilon = 1e-4;  // TRL's

template <typename T>
__device__ T sum_warp(T value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The first index of the largest sign * reward; -1 where no reward is finite.
__device__ std::int64_t first_extreme(const float* reward, std::int64_t begin, std::int64_t end,
                                      int lane, float sign) {
  std::int64_t index = -1;
  float extreme = 0.0f;
  for (std::int64_t i = begin + lane; i < end; i += kWarpSize) {
    const float value = sign * reward[i];
    if (!isfinite(value) || (index >= 0 && !(value > extreme))) continue;
    extreme = value;
    index = i;
  }
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, extreme, distance);
    const std::int64_t other_index = __shfl_xor_sync(kAllLanes, index, distance);
    if (other_index < 0) continue;
    const bool better = other > extreme || (other == extreme && other_index < index);
    if (index < 0 || better) {
      extreme = other;
      index = other_index;
    }
  }
  return index;
}

__global__ void __launch_bounds__(kWarps* kWarpSize)
    group_advantage_kernel(const __grid_constant__ GroupAdvantage p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const std::int64_t group =
      std::int64_t{blockIdx.x} * kWarps + static_cast<int>(threadIdx.x) / kWarpSize;
  if (group >= p.groups) return;  // a whole warp
  const std::int64_t begin = group * p.group_size, end = begin + p.group_size;
  const std::int64_t best = first_extreme(p.reward, begin, end, lane, 1.0f);
  const std::int64_t worst = first_extreme(p.reward, begin, end, lane, -1.0f);
  if (lane == 0) {
    p.best[group] = best;
    p.worst[group] = worst;
  }
  double sum = 0.0, squares = 0.0;
  std::int64_t count = 0;
  for (std::int64_t i = begin + lane; i < end; i += kWarpSize) {
    if (!isfinite(p.reward[i])) continue;
    sum += p.reward[i];
    ++count;
  }
  sum = sum_warp(sum);
  count = sum_warp(count);
  const double mean =
      p.normalization == Normalization::kNone ? 0.0 : sum / static_cast<double>(count);
  for (std::int64_t i = begin + lane; i < end; i += kWarpSize) {
    const double difference = p.reward[i] - mean;
    if (isfinite(p.reward[i])) squares += difference * difference;
  }
  squares = sum_warp(squares);
  double scale = 1.0;
  if (p.normalization == Normalization::kStd) {
    const double freedom = count > 1 ? static_cast<double>(count - 1) : 1.0;
    scale = 1.0 / (sqrt(squares / freedom) + kStdEpsilon);
  }
  for (std::int64_t i = begin + lane; i < end; i += kWarpSize) {
    const float reward = p.reward[i];
    p.advantage[i] = isfinite(reward) ? static_cast<float>((reward - mean) * scale) : 0.0f;
  }
}

}  // namespace

void group_advantage(const GroupAdvantage& p, Stream stream) {
  if (p.group_size < 1) throw std::invalid_argument("group_advantage: group_size is below 1");
  if (p.groups == 0) return;
  const auto blocks = static_cast<unsigned>((p.groups + kWarps - 1) / kWarps);
  launch(group_advantage_kernel, {blocks}, {kWarps * kWarpSize}, 0, stream, p);
}

}  // namespace suder::cuda
