// What forward and backward share: the tile of logits, and how logits come from sums of products.
//
// A tile is transposed: rows are entries of the vocabulary, and the lanes of a vector are tokens.
// The log-sum-exp then runs down the rows with no sum across lanes, tokens never mix, and the
// weight is packed by mere copying.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/gemm.h"
#include "cpu/vec_math.h"
#include "suder/linear_logprob.h"

namespace suder {
inline namespace SUDER_ISA {

inline constexpr std::int64_t kTileRows = 8 * kRows;         // vocabulary entries of a tile
inline constexpr std::int64_t kTilePanels = 192 / kColumns;  // and panels of tokens

// The vocabulary is cut into at most this many parts, by its own size alone: the order in which a
// token's sum is built must not depend on the batch or the number of threads.
inline constexpr std::int64_t kMaxParts = 32;

inline std::int64_t part_rows(std::int64_t vocab) {
  return round_up(ceil_div(vocab, kMaxParts), kTileRows);
}

template <class T>
const T* row_of(const ConstMatrix& m, std::int64_t row) {
  return static_cast<const T*>(m.data) + row * m.stride;
}

// Scratch of one thread: a packed panel of the weight (and what logit_products.h needs for few
// tokens), the bias of the tile, and the tile itself [panel][kTileRows][kColumns].
struct TileScratch {
  static constexpr std::int64_t kWeight = kColumns * kBlock + kWidth * kTileRows;
  static constexpr std::int64_t kLogits = kTilePanels * kTileRows * kColumns;
  static constexpr std::int64_t kSize = kWeight + kLogits + round_up(kTileRows, 16);
  float* data;

  float* weight() const { return data; }
  float* logits() const { return data + kWeight; }
  float* bias() const { return data + kWeight + kLogits; }
};

// The column of token t of a tile; its rows are kColumns apart.
template <class F>
F* column_of(F* logits, std::int64_t t) {
  return logits + t / kColumns * kTileRows * kColumns + t % kColumns;
}

// Final logits that the forward pass leaves for the backward: tiles of the first entries of the
// vocabulary for all tokens, [row tile][panel][kTileRows][kColumns], as many as there is room for.
struct KeptLogits {
  const float* data;
  std::int64_t panels, row_tiles;

  static_assert(kColumns <= kMostTileTokens && kTileRows <= kMostTileVocab);
  static KeptLogits of(const float* data, std::int64_t size, std::int64_t tokens) {
    const std::int64_t panels = ceil_div(tokens, kColumns);
    return {data, panels, data == nullptr ? 0 : size / (panels * kTileRows * kColumns)};
  }
  // The tile that begins at this row and token, or null.
  const float* tile(std::int64_t row, std::int64_t token) const {
    if (row / kTileRows >= row_tiles) return nullptr;
    return data + (row / kTileRows * panels + token / kColumns) * kTileRows * kColumns;
  }
};

// From the sum of products to the final logit. The largest bias is taken off all of them, which
// changes no probability and keeps a large common offset from eating the digits.
struct LogitMap {
  float softcap, inverse_softcap, inverse_temperature, bias_shift;

  template <class T>
  static LogitMap of(const LinearLogprob& p) {
    const bool capped = p.softcap > 0.0f;
    LogitMap map{p.softcap, capped ? 1.0f / p.softcap : 0.0f, 1.0f / p.temperature, 0.0f};
    const T* bias = static_cast<const T*>(p.bias);
    if (capped || bias == nullptr) return map;
    float highest = -INFINITY;
    for (std::int64_t v = 0; v < p.weight.rows; ++v) {
      const float value = to_float(bias[v]);
      highest = value > highest ? value : highest;
    }
    if (std::isfinite(highest)) map.bias_shift = highest;
    return map;
  }

  // What the shift takes from every final logit, hence from lse.
  float lse_shift() const { return bias_shift * inverse_temperature; }

  template <bool kSoftcap>
  Vec apply(Vec sum, float bias) const {
    Vec z = sum + bias;
    if constexpr (kSoftcap) z = tanh(z * inverse_softcap) * softcap;
    return z * inverse_temperature;
  }

  // d(final logit) / d(sum of products), from the final logit.
  template <bool kSoftcap>
  Vec slope(Vec z) const {
    if constexpr (!kSoftcap) return broadcast(inverse_temperature);
    const Vec t = z * (inverse_softcap / inverse_temperature);
    return (1.0f - t * t) * inverse_temperature;
  }
};

template <class T>
void load_tile_bias(const LinearLogprob& p, const LogitMap& map, std::int64_t first_row,
                    std::int64_t rows, float* bias) {
  const T* source = static_cast<const T*>(p.bias);
  for (std::int64_t i = 0; i < rows; ++i) {
    bias[i] = source == nullptr ? 0.0f : to_float(source[first_row + i]) - map.bias_shift;
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
