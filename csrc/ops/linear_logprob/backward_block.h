// How the backward pass is cut: one block of the vocabulary and one chunk of the tokens at a time.
#pragma once

#include "ops/linear_logprob/logits_tile.h"

namespace suder {
inline namespace SUDER_ISA {

inline constexpr std::int64_t kTileTokens = kTilePanels * kColumns;

struct BackwardBlock {
  std::int64_t max_rows, max_tokens;                                  // of any block
  bool one_chunk;                                                     // it holds all tokens
  std::int64_t first_row = 0, rows = 0, first_token = 0, tokens = 0;  // the block at hand

  // Sizes that keep the workspace under 32 MiB; what they cut depends on nothing but D and the
  // type.
  template <class T>
  static BackwardBlock of(std::int64_t tokens, std::int64_t features, std::int64_t vocab) {
    const std::int64_t row_bytes = larger(1, features) * 4;
    const std::int64_t token_bytes = larger(1, units<UnitsOf<T>>(features)) * 4;
    const std::int64_t row_tiles = larger(1, smaller(8, (8 << 20) / (row_bytes * kTileRows)));
    const std::int64_t token_tiles = larger(1, smaller(4, (6 << 20) / (token_bytes * kTileTokens)));
    const std::int64_t max_tokens =
        smaller(token_tiles * kTileTokens, round_up(tokens, kTileTokens));
    return {smaller(row_tiles * kTileRows, round_up(vocab, kTileRows)), max_tokens,
            tokens <= max_tokens};
  }
};

}  // namespace SUDER_ISA
}  // namespace suder
