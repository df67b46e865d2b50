// log p(target) from logits, each row read once.
//
//   z = softcap * tanh(logits / softcap);  z = z / temperature
//   lse = log sum_v exp(z_v),  logprob = z_target - lse,  entropy = lse - sum_v p_v z_v
#pragma once

#include <cstdint>

#include "suder/types.h"

namespace suder {

struct Logprob {
  DType dtype = DType::kFloat32;         // of logits and their gradient
  ConstMatrix logits;                    // [N, V]
  const std::int64_t* target = nullptr;  // [N]
  std::int64_t ignore_index = -100;
  float temperature = 1.0f;
  float softcap = 0.0f;  // 0: none
  int threads = 1;
};

// All three are 0 where target == ignore_index.
struct LogprobForward : Logprob {
  float* logprob = nullptr;  // [N]
  float* lse = nullptr;      // [N], or absent
  float* entropy = nullptr;  // [N], or absent
};

// Upstream gradients may be absent (zero). Ignored rows get 0, whatever theirs are.
struct LogprobBackward : Logprob {
  const float* grad_logprob = nullptr;  // [N]
  const float* grad_lse = nullptr;      // [N]
  const float* grad_entropy = nullptr;  // [N]
  const float* lse = nullptr;           // [N], of the forward call
  const float* entropy = nullptr;       // [N], needed with grad_entropy
  Matrix grad_logits;                   // [N, V]
};

// Throw std::invalid_argument for settings that make no sense, std::out_of_range naming the first
// row whose target is neither in [0, V) nor ignore_index.
void logprob_forward(const LogprobForward& params);
void logprob_backward(const LogprobBackward& params);

}  // namespace suder
