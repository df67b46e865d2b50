// From a tile of sums of products to final logits and their log-sum-exp, a vector of tokens at a
// time.
#pragma once

#include "ops/linear_logprob/logits_tile.h"

namespace suder {
inline namespace SUDER_ISA {

// Running log-sum-exp of a vector of tokens.
struct VectorLse {
  Vec max, sum, weighted;
};

// The largest logit of each of a vector of tokens so far, and the first row that has it.
struct VectorBest {
  Vec logit;
  IntVec row;
};

// Adds final logits, of rows that come after those before. NaN is none of the largest.
inline void best_of_column(const float* column, std::int64_t first_row, std::int64_t rows,
                           VectorBest& best) {
  IntVec row = IntVec{} + static_cast<std::int32_t>(first_row);
  for (std::int64_t i = 0; i < rows; ++i) {
    const Vec z = load(column + i * kColumns);
    const IntVec higher = z > best.logit;
    best.logit = higher ? z : best.logit;
    best.row = higher ? row : best.row;
    row += 1;
  }
}

// Maps the sums of one vector of tokens to logits, in place, and adds them to their log-sum-exp.
template <bool kSoftcap, bool kEntropy>
void reduce_column(const LogitMap& map, const float* bias, std::int64_t rows, float* column,
                   VectorLse& state) {
  Vec highest = state.max;
  for (std::int64_t i = 0; i < rows; ++i) {
    const Vec z = map.apply<kSoftcap>(load(column + i * kColumns), bias[i]);
    store(column + i * kColumns, z);
    highest = max(z, highest);
  }
  // While there is nothing but -inf (or NaN), any finite number will do for the maximum.
  const Vec base = highest == -INFINITY ? Vec{} : highest;
  const Vec shift = state.max - base;
  const Vec scale = exp(shift);
  Vec sum = state.sum * scale, weighted = state.weighted;
  if constexpr (kEntropy) {
    weighted = (weighted + state.sum * max(shift, broadcast(-1e30f))) * scale;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    const Vec d = load(column + i * kColumns) - base;
    const Vec e = exp(d);
    sum += e;
    if constexpr (kEntropy) weighted = fma(e, max(broadcast(-1e30f), d), weighted);
  }
  state = {highest, sum, weighted};
}

}  // namespace SUDER_ISA
}  // namespace suder
