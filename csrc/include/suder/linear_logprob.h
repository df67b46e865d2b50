// log p(target) of softmax(hidden @ weight^T + bias) without ever holding the logits.
//
//   z = hidden @ weight^T + bias;  z = softcap * tanh(z / softcap);  z = z / temperature
//   lse = log sum_v exp(z_v),  logprob = z_target - lse,  entropy = lse - sum_v p_v z_v
#pragma once

#include <cstdint>

#include "suder/types.h"

namespace suder {

// Logits are kept for the backward in whole tiles, of so many tokens and entries of the vocabulary
// at most.
inline constexpr std::int64_t kMostTileTokens = 32, kMostTileVocab = 112;

struct LinearLogprob {
  DType dtype = DType::kFloat32;         // of hidden, weight, bias and, by default, gradients
  ConstMatrix hidden;                    // [N, D]
  ConstMatrix weight;                    // [V, D]
  const void* bias = nullptr;            // [V], or absent
  const std::int64_t* target = nullptr;  // [N]
  std::int64_t ignore_index = -100;
  float temperature = 1.0f;
  float softcap = 0.0f;  // 0: none
  int threads = 1;
};

// Rows whose target is ignore_index give 0 in all results, and anything in `partial`.
struct LinearLogprobForward : LinearLogprob {
  float* logprob = nullptr;  // [N]
  float* lse = nullptr;      // [N], or absent
  float* entropy = nullptr;  // [N], or absent
  // [N], or absent: the first of the largest final logits; 0 where all are -inf or NaN.
  std::int64_t* argmax = nullptr;
  float* logits = nullptr;  // [logits_size], or absent: as many as fit are kept for the backward
  std::int64_t logits_size = 0;
  // [N, 4], or absent: from what the results are made, for a caller that has other parts of the
  // vocabulary to merge (common/online_lse.h): the largest logit, sum exp(d) and sum exp(d) * d of
  // the distances d from it (0 without `entropy`), the target's logit. Of final logits, in double:
  // what is taken off them here (LogitMap) differs from part to part.
  double* partial = nullptr;
};

// d(loss) / d(hidden, weight, bias) for the gradients of logprob, lse and entropy, each of which
// may be absent (zero). Ignored rows take no part, whatever their upstream gradients.
struct LinearLogprobBackward : LinearLogprob {
  const float* grad_logprob = nullptr;  // [N]
  const float* grad_lse = nullptr;      // [N]
  const float* grad_entropy = nullptr;  // [N]
  const float* lse = nullptr;           // [N], of the forward call
  const float* entropy = nullptr;       // [N], needed with grad_entropy
  const float* logits = nullptr;        // [logits_size], of the forward call; what is not there
  std::int64_t logits_size = 0;         // is computed again, with the same bits
  Matrix grad_hidden;                   // [N, D], or data absent
  Matrix grad_weight;                   // [V, D], or data absent
  void* grad_bias = nullptr;            // [V], or absent
  // A caller that goes through its tokens in several calls: all three gradients are float32,
  // whatever dtype is, and those of weight and bias are added to what is there.
  bool float32_gradients = false;
  bool add = false;  // needs float32 gradients
  // grad_hidden alone is float32: a part of a sum over parts of the vocabulary.
  bool float32_hidden = false;
};

// Throw std::invalid_argument for sizes and settings that make no sense, std::out_of_range naming
// the first row whose target is neither in [0, V) nor ignore_index.
void linear_logprob_forward(const LinearLogprobForward& params);
void linear_logprob_backward(const LinearLogprobBackward& params);

}  // namespace suder
