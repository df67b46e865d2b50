// Policy-gradient losses over packed sequences: GRPO, DAPO, Dr.GRPO, GSPO, CISPO, SAPO, VESPO,
// GMPO, GPG. The formula of a token is in ops/policy_loss/formula.h.
//
//   ratio = exp(logprob - old_logprob)            kSequence: its geometric mean over the sequence
//   token = token_weight * surrogate(ratio, logprob, advantage) + kl_coef * KL estimate
//   loss  = sum of tokens * scale; scale is 1 / (B * length), 1 / T, 1 / (B * max_length) or 1 / B
#pragma once

#include <cstdint>

namespace suder {

enum class PolicySurrogate : int {
  kClip = 0,
  kCispo = 1,
  kSapo = 2,
  kVespo = 3,
  kGmpo = 4,
  kGpg = 5
};
enum class PolicyReduction : int { kSequence = 0, kToken = 1, kConstant = 2, kSum = 3 };
enum class PolicyLevel : int { kToken = 0, kSequence = 1 };
enum class KlEstimator : int { kK1 = 0, kK2 = 1, kK3 = 2 };

// What a surrogate takes for advantages of each sign.
struct BySign {
  double positive = 1.0;
  double negative = 1.0;
};

struct PolicyLossOptions {
  PolicySurrogate surrogate = PolicySurrogate::kClip;
  double clip_low = 0.2;
  double clip_high = 0.2;  // of kCispo: the largest ratio itself
  double delta = 0.0;      // the largest ratio before the clip; infinity: none
  double kl_coef = 0.0;
  KlEstimator kl_estimator = KlEstimator::kK3;
  bool kl_bias_correction = false;  // the estimate times the ratio
  PolicyReduction reduction = PolicyReduction::kSequence;
  PolicyLevel level = PolicyLevel::kToken;
  std::int64_t max_length = 0;  // of kConstant; 0: the longest sequence
  double num_items = 0.0;       // in the place of B, or of T for kToken; 0: this batch's own
  BySign sapo_temperature, vespo_k, vespo_lambda;
};

struct PolicyLoss : PolicyLossOptions {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  const std::int64_t* cu_seqlens = nullptr;  // [B + 1], from 0 to tokens
  const float* logprob = nullptr;            // [T]
  const float* old_logprob = nullptr;        // [T]
  const float* ref_logprob = nullptr;        // [T], or absent: kl_coef is not used
  const float* advantage = nullptr;          // [B], or [T]
  const float* token_weight = nullptr;       // [T], or absent: 1
  const float* sampler_log_ratio = nullptr;  // [T], or absent: 0; of kVespo, beside its log-ratio
  bool advantage_per_token = false;
  int threads = 1;

  float* loss = nullptr;     // [1]
  float* metrics = nullptr;  // [4] PolicyMetrics, or absent
  // Slopes are absent where no gradient is wanted.
  float* ratio_slope = nullptr;  // [T] d loss / d (logprob - old_logprob)
  float* kl_slope = nullptr;     // [T] d loss / d (logprob - ref_logprob)
  // [T] d loss / d logprob, where it is not ratio_slope + kl_slope (kCispo, kVespo, kGpg hold a
  // ratio constant) or that sum cancels (kl_bias_correction).
  float* logprob_slope = nullptr;
  float* advantage_slope = nullptr;  // [B] or [T] d loss / d advantage
  float* weight_slope = nullptr;     // [T] d loss / d token_weight
};

// A sequence's part of the loss, and of the metrics in their order: the parts of its tokens with a
// ratio below and above the clip that stopped them, the KL estimates, the ratios.
struct PolicyTotals {
  double loss = 0.0;
  double metrics[4] = {};
};

// Throws std::invalid_argument if cu_seqlens is not sorted from 0 to tokens.
void policy_loss(const PolicyLoss& params);

}  // namespace suder
