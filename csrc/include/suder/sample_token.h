// One token of each row's distribution, by inverting its cumulative distribution.
//
//   z = logits / temperature, or (hidden @ weight^T + bias) / temperature
//   kept: the top_k largest z (ties with the k-th too), and of these the smallest set, from the
//         largest down, that holds the probability top_p (of equals the first comes first)
//   token = the first kept v at which sum_{u <= v} p_u exceeds the row's uniform number
//
// logprob and entropy are of the distribution that was drawn from. A row with NaN or +inf, or
// nothing but -inf, has none: token 0, NaN.
#pragma once

#include <cstdint>

#include "suder/linear_logprob.h"

namespace suder {

struct Draw {
  const double* uniform = nullptr;  // [R] in [0, 1), or absent: the most likely token
  std::int64_t top_k = 0;           // 0: all
  double top_p = 1.0;
  std::int64_t* token = nullptr;  // [R]
  float* logprob = nullptr;       // [R]
  float* entropy = nullptr;       // [R]
};

struct SampleToken : Draw {
  DType dtype = DType::kFloat32;
  ConstMatrix logits;  // [R, V]
  float temperature = 1.0f;
  int threads = 1;
};

// The same from hidden states, never holding more than a workspace of logits; `target` is unused.
struct LinearSampleToken : Draw {
  LinearLogprob head;
};

// Throw std::invalid_argument for sizes and settings that make no sense.
void sample_token(const SampleToken& params);
void linear_sample_token(const LinearSampleToken& params);

}  // namespace suder
