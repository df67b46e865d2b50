// The gradient of logits, elementwise given the row's log-sum-exp and entropy:
//   dz = onehot * g_logprob + p (g_lse - g_logprob - g_entropy (log p + entropy))
// times the slope of softcap and temperature.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace suder::cuda {

// A row's factors: dz = (onehot * direct + p * (common + per_log_p * log p)) * slope.
struct RowFactors {
  float lse, direct, common, per_log_p;
  std::int64_t target;
  bool zero;  // whatever the logits are; then the target is nowhere
};

// What the results of the forward were, and the gradients that come from above.
struct RowGradients {
  const std::int64_t* target;
  std::int64_t tokens, vocab, ignore_index;
  const float *lse, *entropy, *grad_logprob, *grad_lse, *grad_entropy;

  // Nothing is read of rows past the last token.
  __device__ RowFactors factors(std::int64_t row) const {
    RowFactors f = {0.0f, 0.0f, 0.0f, 0.0f, -1, true};
    if (row >= tokens || target[row] == ignore_index) return f;
    f.zero = false;
    f.lse = lse[row];
    f.target = target[row];
    if (grad_logprob != nullptr) f.direct = grad_logprob[row];
    // Nobody can say what the derivative is where the target does not exist.
    if (f.target < 0 || f.target >= vocab) f.direct *= NAN;
    f.common = -f.direct;
    if (grad_lse != nullptr) f.common += grad_lse[row];
    if (grad_entropy != nullptr) {
      f.per_log_p = -grad_entropy[row];
      f.common += f.per_log_p * entropy[row];
    }
    return f;
  }
};

// By the final logit (without the slope), from log p and p.
__device__ inline float derivative(const RowFactors& f, float log_p, float p, bool at_target) {
  const bool nothing = p == 0.0f || f.zero;  // 0 * -inf is not 0
  const float dz = nothing ? 0.0f : p * (f.common + f.per_log_p * log_p);
  return at_target ? dz + f.direct : dz;
}

}  // namespace suder::cuda
