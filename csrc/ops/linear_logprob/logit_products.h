// The products behind a tile of logits: hidden states packed, times rows of the weight.
#pragma once

#include "cpu/pack.h"
#include "ops/linear_logprob/logits_tile.h"

namespace suder {
inline namespace SUDER_ISA {

// So few tokens would leave lanes empty that entries of the vocabulary can fill: they become the
// left operand, and the weight the right one. An element is the same chain of multiply-adds either
// way, so a token gets the same bits.
inline constexpr std::int64_t kFewTokens = kRows < kWidth ? kRows : kWidth - 1;

// The packed hidden states of `tokens` rows, [k block][panel][k][kColumns]; few of them as
// [k block][A panel].
template <class T>
struct PackedTokens {
  std::int64_t features, tokens;
  float* data;

  std::int64_t depth() const { return units<UnitsOf<T>>(features); }
  std::int64_t panels() const { return ceil_div(tokens, kColumns); }
  std::int64_t size() const { return panels() * b_panel_size(depth()) + a_panel_size(kWidth); }
  bool few() const { return tokens <= kFewTokens; }
  float* at(std::int64_t k, std::int64_t panel) const {
    const std::int64_t block = smaller(kBlock, depth() - k);
    return data + k * panels() * kColumns + panel * b_panel_size(block);
  }

  void pack(const ConstMatrix& hidden, std::int64_t first_token, std::int64_t panel) const {
    constexpr int kElements = UnitsOf<T>::kElements;
    const std::int64_t token = panel * kColumns;
    const T* source = row_of<T>(hidden, first_token + token);
    for (std::int64_t k = 0; k < depth(); k += kBlock) {
      const std::int64_t elements = smaller(kBlock * kElements, features - k * kElements);
      if (few()) {
        pack_a(source + k * kElements, hidden.stride, tokens, elements, at(k, panel));
      } else {
        pack_b_transposed(source + k * kElements, hidden.stride, smaller(kColumns, tokens - token),
                          elements, at(k, panel));
      }
    }
  }
};

// Tokens packed at a time: about 8 MiB of them.
template <class T>
std::int64_t chunk_tokens(std::int64_t features) {
  const std::int64_t row = larger(1, units<UnitsOf<T>>(features)) * 4;
  return larger(1, (8 << 20) / (row * kTilePanels * kColumns)) * kTilePanels * kColumns;
}

// Panel j of `panels` fetches its share of the weight rows that will be packed after this product.
template <class T>
Ahead fetch_share(const LinearLogprob& p, std::int64_t row, std::int64_t element, std::int64_t j,
                  std::int64_t panels) {
  const std::int64_t share = ceil_div(kRows, panels), first = row + j * share;
  const std::int64_t rows = smaller(smaller(share, kRows - j * share), p.weight.rows - first);
  if (rows <= 0) return {};
  return {reinterpret_cast<const char*>(row_of<T>(p.weight, first) + element),
          p.weight.stride * static_cast<std::int64_t>(sizeof(T)), static_cast<int>(rows)};
}

// multiply_logits for few tokens. `packed` also holds their sums [token][kTileRows], which end up
// transposed in the tile.
template <class T>
void multiply_few(const LinearLogprob& p, const PackedTokens<T>& tokens, std::int64_t first_row,
                  std::int64_t rows, float* packed, float* logits) {
  using Units = UnitsOf<T>;
  float* sums = packed + kColumns * kBlock;
  for (std::int64_t k = 0; k < larger(tokens.depth(), 1); k += kBlock) {
    const std::int64_t element = k * Units::kElements;
    const std::int64_t block = smaller(kBlock, tokens.depth() - k);
    for (std::int64_t i = 0; i < rows; i += kColumns) {
      const std::int64_t some = smaller(kColumns, rows - i);
      const T* source = row_of<T>(p.weight, first_row + i) + element;
      pack_b_transposed(source, p.weight.stride, some,
                        smaller(kBlock * Units::kElements, tokens.features - element), packed);
      const std::int64_t next = smaller(kColumns, p.weight.rows - first_row - i - some);
      multiply_panels<Units>(
          tokens.at(k, 0), packed, block, static_cast<int>(tokens.tokens), static_cast<int>(some),
          sums + i, kTileRows, k > 0,
          {reinterpret_cast<const char*>(source + some * p.weight.stride),
           p.weight.stride * static_cast<std::int64_t>(sizeof(T)), static_cast<int>(next)});
    }
  }
  for (std::int64_t i = 0; i < rows; i += kWidth) {
    Vec block[kWidth] = {};
    for (std::int64_t t = 0; t < tokens.tokens; ++t) block[t] = load(sums + t * kTileRows + i);
    transpose(block);
    for (int row = 0; row < kWidth; ++row) store(logits + (i + row) * kColumns, block[row]);
  }
}

// Sums of products of weight rows [first_row, first_row + rows) with the tokens of `panels` panels;
// `logits` is a tile, `packed` the room for a panel of the weight.
template <class T>
void multiply_logits(const LinearLogprob& p, const PackedTokens<T>& tokens, std::int64_t first_row,
                     std::int64_t rows, std::int64_t first_panel, std::int64_t panels,
                     float* packed, float* logits) {
  if (tokens.few()) return multiply_few(p, tokens, first_row, rows, packed, logits);
  using Units = UnitsOf<T>;
  for (std::int64_t k = 0; k < larger(tokens.depth(), 1); k += kBlock) {
    const std::int64_t element = k * Units::kElements;
    const std::int64_t block = smaller(kBlock, tokens.depth() - k);
    const bool last_block = k + kBlock >= tokens.depth();
    for (std::int64_t i = 0; i < rows; i += kRows) {
      const std::int64_t some = smaller(kRows, rows - i);
      pack_a(row_of<T>(p.weight, first_row + i) + element, p.weight.stride, some,
             smaller(kBlock * Units::kElements, tokens.features - element), packed);
      // After the tile's last rows come its first rows in the next block of k, or the next tile.
      const bool wraps = i + kRows >= rows && !last_block;
      const std::int64_t next_row = first_row + (wraps ? 0 : i + kRows);
      const std::int64_t next_element =
          i + kRows < rows ? element : (last_block ? 0 : element + kBlock * Units::kElements);
      for (std::int64_t j = 0; j < panels; ++j) {
        const std::int64_t left = tokens.tokens - (first_panel + j) * kColumns;
        multiply_panels<Units>(packed, tokens.at(k, first_panel + j), block, static_cast<int>(some),
                               left > kWidth ? kColumns : kWidth,
                               logits + (j * kTileRows + i) * kColumns, kColumns, k > 0,
                               fetch_share<T>(p, next_row, next_element, j, panels));
      }
    }
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
