// From a tile of logits to the tile of their gradients.
#pragma once

#include "ops/linear_logprob/gradient_matrix.h"

namespace suder {
inline namespace SUDER_ISA {

// What a vector of tokens contributes to the gradient of its logits. With d = z - lse = log p:
//   dz = p * (g_lse - g_logprob - g_entropy * (d + entropy)) + [v is the target] * g_logprob
// (d entropy / dz = -p (log p + entropy)). Lanes that are ignored, or past the end, stay 0.
struct TokenTerms {
  Vec lse, entropy, common, grad_entropy, grad_target;
  IntVec target, active;

  static TokenTerms of(const LinearLogprobBackward& p, const LogitMap& map, std::int64_t token,
                       std::int64_t first_row) {
    TokenTerms t{};
    for (int lane = 0; lane < kWidth; ++lane) {
      const std::int64_t n = token + lane;
      if (n >= p.hidden.rows || p.target[n] == p.ignore_index) continue;
      const float of_logprob = p.grad_logprob ? p.grad_logprob[n] : 0.0f;
      t.active[lane] = -1;
      t.target[lane] = static_cast<std::int32_t>(p.target[n] - first_row);
      t.lse[lane] = p.lse[n] - map.lse_shift();
      t.common[lane] = (p.grad_lse ? p.grad_lse[n] : 0.0f) - of_logprob;
      t.grad_target[lane] = of_logprob;
      if (p.grad_entropy == nullptr) continue;
      t.grad_entropy[lane] = p.grad_entropy[n];
      t.entropy[lane] = p.entropy[n];
    }
    return t;
  }
};

// Turns one vector of tokens of the tile (kFinal: of final logits, else of sums of products) into
// gradients, stored at `gradient`, and adds each row to
// `row_sums` if there are any.
template <class Gradient, bool kSoftcap, bool kFinal>
void differentiate_column(const LogitMap& map, const TokenTerms& t, bool with_entropy,
                          const float* bias, std::int64_t rows, const float* column,
                          Gradient* gradient, std::int64_t stride, Vec* row_sums) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const Vec loaded = load(column + i * kColumns);
    const Vec z = kFinal ? loaded : map.apply<kSoftcap>(loaded, bias[i]);
    const Vec d = z - t.lse;
    Vec factor = t.common;
    if (with_entropy) {
      factor -= t.grad_entropy * (max(broadcast(-1e30f), d) + t.entropy);
    }
    const Vec at_target = t.target == static_cast<std::int32_t>(i) ? t.grad_target : Vec{};
    const Vec dz = fma(exp(d), factor, at_target) * map.slope<kSoftcap>(z);
    const Vec kept = t.active != 0 ? dz : Vec{};
    store_floats(gradient + i * stride, kept);
    if (row_sums != nullptr) row_sums[i] += kept;
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
