// Rewards of candidates relative to their group's, and each group's best and worst.
#pragma once

#include <cstdint>

namespace suder {

// kStd: (r - mean) / (std + 1e-4), std unbiased (GRPO); kMean: r - mean (Dr.GRPO); kNone: r.
enum class Normalization : int { kNone = 0, kStd = 1, kMean = 2 };

struct GroupAdvantage {
  const float* reward = nullptr;  // [groups * group_size]; NaN and infinities take no part
  std::int64_t groups = 0;
  std::int64_t group_size = 1;
  Normalization normalization = Normalization::kStd;
  float* advantage = nullptr;     // [groups * group_size]; 0 where the reward is not finite
  std::int64_t* best = nullptr;   // [groups] index into reward, the first of equals; -1: none
  std::int64_t* worst = nullptr;  // [groups] likewise
};

void group_advantage(const GroupAdvantage& params);

}  // namespace suder
