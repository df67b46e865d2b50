// KL(policy || reference) over the vocabulary from the hidden states of both, without ever holding
// the logits.
//
//   z, y = the final logits of policy and reference (linear_logprob.h), p, q = their softmax
//   kl = sum_v p_v (log p_v - log q_v) = sum_v p_v (z_v - y_v) - lse(z) + lse(y)
#pragma once

#include <cstdint>

#include "suder/linear_logprob.h"

namespace suder {

// What a row's backward needs of its softmaxes: the largest logit and the log of the sum of
// exp(logit - largest), of the policy and of the reference. Apart, for their sum has few digits
// where logits are large.
inline constexpr std::int64_t kKlStateFloats = 4;

// Both sides have the same dtype, targets, settings, vocabulary and number of tokens; the widths
// may differ. A target says no more than whether its row is ignored: then kl is 0.
struct LinearKlForward {
  LinearLogprob policy, reference;
  float* kl = nullptr;      // [N], never negative
  float* state = nullptr;   // [N, kKlStateFloats], or absent
  float* logits = nullptr;  // [2, logits_size], or absent: of each side as many as fit are kept
  std::int64_t logits_size = 0;
};

// The gradients that each side asks for, and the logits of each that the forward kept. Rows of an
// infinite kl have gradients of NaN.
struct LinearKlBackward {
  LinearLogprobBackward policy, reference;
  const float* grad_kl = nullptr;  // [N]
  const float* kl = nullptr;       // [N], of the forward call
  const float* state = nullptr;
};

// Throw std::invalid_argument for sizes and settings that make no sense.
void linear_kl_forward(const LinearKlForward& params);
void linear_kl_backward(const LinearKlBackward& params);

}  // namespace suder
