// A group is a handful of numbers: one thread, in double, in the order given.
#include <cmath>

#include "common/dtype.h"
#include "suder/group_advantage.h"

namespace suder::SUDER_ISA {
namespace {

constexpr double kStdEpsilon = 1e-4;  // TRL's

void one_group(const GroupAdvantage& p, std::int64_t group) {
  const std::int64_t begin = group * p.group_size, end = begin + p.group_size;
  std::int64_t count = 0, best = -1, worst = -1;
  double sum = 0.0;
  for (std::int64_t i = begin; i < end; ++i) {
    const float reward = p.reward[i];
    if (!std::isfinite(reward)) continue;
    ++count;
    sum += reward;
    if (best < 0 || reward > p.reward[best]) best = i;
    if (worst < 0 || reward < p.reward[worst]) worst = i;
  }
  p.best[group] = best;
  p.worst[group] = worst;

  const double mean =
      p.normalization == Normalization::kNone ? 0.0 : sum / static_cast<double>(count);
  double scale = 1.0;
  if (p.normalization == Normalization::kStd) {
    double squares = 0.0;
    for (std::int64_t i = begin; i < end; ++i) {
      const double difference = p.reward[i] - mean;
      if (std::isfinite(p.reward[i])) squares += difference * difference;
    }
    const double freedom = count > 1 ? static_cast<double>(count - 1) : 1.0;
    scale = 1.0 / (std::sqrt(squares / freedom) + kStdEpsilon);
  }
  for (std::int64_t i = begin; i < end; ++i) {
    p.advantage[i] =
        std::isfinite(p.reward[i]) ? static_cast<float>((p.reward[i] - mean) * scale) : 0.0f;
  }
}

}  // namespace

void group_advantage_cpu(const GroupAdvantage& p) {
  for (std::int64_t group = 0; group < p.groups; ++group) one_group(p, group);
}

}  // namespace suder::SUDER_ISA
