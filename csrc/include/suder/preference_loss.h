// Losses of preference pairs and their derivatives; formulas in ops/preference_loss/formula.h.
#pragma once

#include <cstdint>

namespace suder {

enum class PreferenceLossType : int {
  kSigmoid = 0,
  kHinge = 1,
  kIpo = 2,
  kExoPair = 3,
  kNcaPair = 4,
  kRobust = 5,
  kBcoPair = 6,
  kSppoHard = 7,
  kAot = 8,
  kAotUnpaired = 9,
  kApoZero = 10,
  kApoDown = 11,
  kDiscopop = 12,
  kSft = 13,
  kSigmoidNorm = 14,
  kSimpo = 15,
  kCpo = 16,
  kOrpo = 17,
};
enum class FDivergence : int {
  kReverseKl = 0,
  kForwardKl = 1,
  kJsDivergence = 2,
  kAlphaDivergence = 3,
};

struct PreferenceLossOptions {
  PreferenceLossType type = PreferenceLossType::kSigmoid;
  FDivergence f_divergence = FDivergence::kReverseKl;
  double beta = 0.1;
  double label_smoothing = 0.0;
  double margin = 0.0;
  double f_alpha = 0.5;            // of kAlphaDivergence; 1: its limit, kReverseKl
  double discopop_tau = 0.05;      // of kDiscopop
  double likelihood_weight = 1.0;  // of the likelihood term of kCpo and kOrpo
};

// The sorting losses (kAot, kAotUnpaired) compare pair i with pair partner[i], a permutation; for
// the others partner is absent and a pair stands alone.
struct PreferenceLoss : PreferenceLossOptions {
  std::int64_t pairs = 0;
  const float* chosen = nullptr;                  // [B] sequence log-probabilities
  const float* rejected = nullptr;                // [B]
  const float* ref_chosen = nullptr;              // [B], or absent: 0
  const float* ref_rejected = nullptr;            // [B], or absent: 0
  const std::int64_t* chosen_length = nullptr;    // [B], or absent where the loss needs none
  const std::int64_t* rejected_length = nullptr;  // [B] likewise
  int threads = 1;

  float* loss = nullptr;             // [B]
  float* chosen_reward = nullptr;    // [B]
  float* rejected_reward = nullptr;  // [B]
  // Slopes are absent where no gradient is wanted.
  float* chosen_slope = nullptr;    // [B] d loss[i] / d chosen[i]
  float* rejected_slope = nullptr;  // [B] d loss[i] / d rejected[i], or [partner[i]]: kAotUnpaired
  std::int64_t* partner = nullptr;  // [B], for the sorting losses
};

struct PreferenceLossBackward : PreferenceLossOptions {
  std::int64_t pairs = 0;
  const float* grad_loss = nullptr;             // [B], or absent: 0; so the next two
  const float* grad_chosen_reward = nullptr;    // [B]
  const float* grad_rejected_reward = nullptr;  // [B]
  const float* chosen_slope = nullptr;          // [B], of the forward call; so the next two
  const float* rejected_slope = nullptr;        // [B]
  const std::int64_t* partner = nullptr;        // [B], for the sorting losses
  const std::int64_t* chosen_length = nullptr;  // [B], as in the forward call
  const std::int64_t* rejected_length = nullptr;

  float* grad_chosen = nullptr;        // [B]
  float* grad_rejected = nullptr;      // [B]
  float* grad_ref_chosen = nullptr;    // [B], or absent; both or neither
  float* grad_ref_rejected = nullptr;  // [B]
};

// Throw std::invalid_argument if an argument that the loss needs is absent.
void preference_loss_forward(const PreferenceLoss& params);
void preference_loss_backward(const PreferenceLossBackward& params);

}  // namespace suder
