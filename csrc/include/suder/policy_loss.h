// Clipped policy-gradient loss over packed sequences: GRPO, DAPO, Dr.GRPO, GSPO.
//
//   ratio = exp(logprob - old_logprob)            kSequence: its geometric mean over the sequence
//   token = -min(ratio * A, clamp(ratio, 1 - clip_low, 1 + clip_high) * A)
//           + kl_coef * (exp(d) - d - 1),  d = ref_logprob - logprob
//   loss  = sum of tokens * weight; weight is 1 / (B * length), 1 / T or 1 / (B * max_length)
#pragma once

#include <cstdint>

namespace suder {

enum class PolicyReduction : int { kSequence = 0, kToken = 1, kConstant = 2 };
enum class PolicyLevel : int { kToken = 0, kSequence = 1 };

struct PolicyLoss {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  const std::int64_t* cu_seqlens = nullptr;  // [B + 1], from 0 to tokens
  const float* logprob = nullptr;            // [T]
  const float* old_logprob = nullptr;        // [T]
  const float* ref_logprob = nullptr;        // [T], or absent: kl_coef is not used
  const float* advantage = nullptr;          // [B]
  double clip_low = 0.2;
  double clip_high = 0.2;
  double kl_coef = 0.0;
  PolicyReduction reduction = PolicyReduction::kSequence;
  PolicyLevel level = PolicyLevel::kToken;
  std::int64_t max_length = 0;  // of kConstant; 0: the longest sequence
  int threads = 1;

  float* loss = nullptr;  // [1]
  // Slopes are absent where no gradient is wanted.
  float* ratio_slope = nullptr;      // [T] d loss / d (logprob - old_logprob)
  float* kl_slope = nullptr;         // [T] d loss / d (logprob - ref_logprob)
  float* advantage_slope = nullptr;  // [B] d loss / d advantage
};

// Throws std::invalid_argument if cu_seqlens is not sorted from 0 to tokens.
void policy_loss(const PolicyLoss& params);

}  // namespace suder
