// From two tiles of final logits to the tiles of their gradients.
#pragma once

#include "ops/linear_kl/tile_kl.h"
#include "ops/linear_logprob/gradient_matrix.h"
#include "suder/linear_kl.h"

namespace suder {
inline namespace SUDER_ISA {

// What a vector of tokens contributes to the gradients of its logits z and y:
//   dz = g p (log p - log q - kl),  dy = g (q - p)
// Where kl is infinite there is no gradient: NaN. Lanes that are ignored, or past the end, stay 0.
struct KlTerms {
  Vec grad, kl, max, log_sum, ref_max, ref_log_sum;
  IntVec active;

  static KlTerms of(const LinearKlBackward& p, std::int64_t token) {
    KlTerms t{};
    for (int lane = 0; lane < kWidth; ++lane) {
      const std::int64_t n = token + lane;
      if (n >= p.policy.hidden.rows || p.policy.target[n] == p.policy.ignore_index) continue;
      const float* state = p.state + n * kKlStateFloats;
      t.active[lane] = -1;
      t.grad[lane] = std::isfinite(p.kl[n]) ? p.grad_kl[n] : NAN;
      t.kl[lane] = p.kl[n];
      t.max[lane] = state[0];
      t.log_sum[lane] = state[1];
      t.ref_max[lane] = state[2];
      t.ref_log_sum[lane] = state[3];
    }
    return t;
  }
};

// Where one side's gradients of a vector of tokens go; nowhere if nobody asks for them.
template <class Gradient>
struct GradientColumn {
  Gradient* gradient;  // or null
  std::int64_t stride;
  Vec* row_sums;  // of a tile, or null

  void add(std::int64_t row, Vec value, IntVec active) const {
    const Vec kept = active != 0 ? value : Vec{};
    store_floats(gradient + row * stride, kept);
    if (row_sums != nullptr) row_sums[row] += kept;
  }
};

template <class Gradient, bool kSoftcap>
void differentiate_kl(const LogitMap& map, const KlTerms& t, std::int64_t rows, const float* column,
                      const float* ref_column, const GradientColumn<Gradient>& policy,
                      const GradientColumn<Gradient>& reference) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const Vec z = load(column + i * kColumns), y = load(ref_column + i * kColumns);
    const Vec log_p = (z - t.max) - t.log_sum, log_q = (y - t.ref_max) - t.ref_log_sum;
    Vec e[] = {log_p, log_q};
    exp(e);
    if (policy.gradient != nullptr) {
      const Vec ratio = bounded(log_p) - bounded(log_q);
      const Vec dz = t.grad * e[0] * (ratio - t.kl);
      policy.add(i, dz * map.template slope<kSoftcap>(z), t.active);
    }
    if (reference.gradient != nullptr) {
      const Vec dy = t.grad * (e[1] - e[0]);
      reference.add(i, dy * map.template slope<kSoftcap>(y), t.active);
    }
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
