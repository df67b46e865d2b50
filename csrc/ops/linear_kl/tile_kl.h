// From two tiles of final logits to their part of the divergence, a vector of tokens at a time.
#pragma once

#include "common/online_kl.h"
#include "ops/linear_logprob/logits_tile.h"

namespace suder {
inline namespace SUDER_ISA {

// OnlineKl of a vector of tokens.
struct VectorKl {
  Vec max = broadcast(-INFINITY), ref_max = broadcast(-INFINITY);
  Vec sum{}, ref_sum{}, weighted{}, impossible{};

  OnlineKl lane(int i) const {
    return {max[i], ref_max[i], sum[i], ref_sum[i], weighted[i], impossible[i]};
  }
};

inline Vec bounded(Vec distance) { return max(broadcast(kFarthest), distance); }

// Adds the logits of a column to its state; `highest` are the largest of both.
inline void reduce_column(std::int64_t rows, const float* column, const float* ref_column,
                          Vec highest, Vec ref_highest, VectorKl& s) {
  // While there is nothing but -inf (or NaN), any finite number will do for the maximum.
  const Vec base = highest == -INFINITY ? Vec{} : highest;
  const Vec ref_base = ref_highest == -INFINITY ? Vec{} : ref_highest;
  const Vec shift = bounded(s.max - base);
  const Vec ref_shift = bounded(s.ref_max - ref_base);
  const Vec scale = exp(shift);
  Vec sum = s.sum * scale, ref_sum = s.ref_sum * exp(ref_shift);
  Vec weighted = (s.weighted + s.sum * (shift - ref_shift)) * scale;
  Vec lowest{};
  for (std::int64_t i = 0; i < rows; ++i) {
    const Vec y = load(ref_column + i * kColumns);
    const Vec a = load(column + i * kColumns) - base, b = y - ref_base;
    Vec e[] = {a, b};
    exp(e);
    sum += e[0];
    ref_sum += e[1];
    weighted = fma(e[0], bounded(a) - bounded(b), weighted);
    lowest = min(y, lowest);
  }
  if (any_greater(broadcast(-3.4028235e38f), lowest)) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const Vec z = load(column + i * kColumns), y = load(ref_column + i * kColumns);
      const IntVec alone = (y == -INFINITY) & (z != -INFINITY);
      s.impossible = alone != 0 ? broadcast(INFINITY) : s.impossible;
    }
  }
  s = {highest, ref_highest, sum, ref_sum, weighted, s.impossible};
}

}  // namespace SUDER_ISA
}  // namespace suder
