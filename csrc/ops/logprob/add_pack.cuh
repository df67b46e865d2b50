// A thread's log-sum-exp of the logits that it reads, pack by pack.
#pragma once

#include "cuda/reduce.cuh"
#include "cuda/tensor_core.cuh"

namespace suder::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;

// A pack joins the thread's state: its maximum first, then one power of two a logit.
template <bool kEntropy, int kCount>
__device__ void add_pack(OnlineLse& s, const float (&z)[kCount], float scale,
                         float inverse_temperature) {
  float top = s.max;
#pragma unroll
  for (int i = 0; i < kCount; ++i) top = fmaxf(top, z[i]);  // never NaN
  if (top > s.max) s = relative_to(s, top, inverse_temperature);
  const float max = top == -INFINITY ? 0.0f : top;
  float sum = 0.0f, weighted = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float bits = (z[i] - max) * scale, e = exp2_approx(bits);
    sum += e;
    if constexpr (kEntropy) weighted = fmaf(e, fmaxf(bits, -200.0f), weighted);  // not 0 * -inf
  }
  s.sum += sum;
  if constexpr (kEntropy) s.weighted = fmaf(weighted, kLn2, s.weighted);
}

}  // namespace suder::cuda
