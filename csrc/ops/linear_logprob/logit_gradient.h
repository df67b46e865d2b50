// Step 1 of the backward pass: the logits of a block again, and from them their gradient
// G [vocabulary, tokens] and its sums over the tokens of each tile.
#pragma once

#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/linear_logprob/bias_gradient.h"
#include "ops/linear_logprob/gradient_tile.h"
#include "ops/linear_logprob/logit_products.h"

namespace suder {
inline namespace SUDER_ISA {

template <class T>
class LogitGradient {
 public:
  using Gradient = GradientOf<T>;

  LogitGradient(const LinearLogprobBackward& params, const BackwardBlock& block)
      : p_(params),
        block_(block),
        map_(LogitMap::of<T>(params)),
        kept_(KeptLogits::of(params.logits, params.logits_size, params.hidden.rows)),
        stride_(block.max_tokens + kWidth),
        packed_{params.hidden.cols, block.max_tokens, nullptr},
        packed_memory_(packed_.size()),
        gradients_(block.max_rows * stride_),
        bias_(params, block) {
    packed_.data = packed_memory_.data();
  }

  GradientMatrix<T> matrix() const {
    return {reinterpret_cast<const Gradient*>(gradients_.data()), stride_};
  }
  BiasGradient<T>& bias() { return bias_; }

  void pack_tokens(int threads);
  void make(int threads, float* scratch);  // TileScratch::kSize floats a thread

 private:
  std::int64_t token_tiles() const { return ceil_div(packed_.panels(), kTilePanels); }
  void run_tile(std::int64_t tile_row, std::int64_t token_tile, float* scratch);
  template <bool kFinal>
  void differentiate(std::int64_t tile_row, std::int64_t token_tile, const float* bias,
                     const float* logits);

  const LinearLogprobBackward& p_;
  const BackwardBlock& block_;
  const LogitMap map_;
  const KeptLogits kept_;
  const std::int64_t stride_;
  PackedTokens<T> packed_;
  const cpu::Workspace packed_memory_, gradients_;
  BiasGradient<T> bias_;
};

template <class T>
void LogitGradient<T>::pack_tokens(int threads) {
  packed_.tokens = block_.tokens;
  cpu::parallel_for(threads, packed_.panels(), [&](std::int64_t panel, int) {
    packed_.pack(p_.hidden, block_.first_token, panel);
  });
}

template <class T>
void LogitGradient<T>::make(int threads, float* scratch) {
  const std::int64_t tiles = token_tiles();
  cpu::parallel_for(
      threads, ceil_div(block_.rows, kTileRows) * tiles, [&](std::int64_t task, int thread) {
        run_tile(task / tiles * kTileRows, task % tiles, scratch + thread * TileScratch::kSize);
      });
}

template <class T>
void LogitGradient<T>::run_tile(std::int64_t tile_row, std::int64_t token_tile, float* scratch) {
  const TileScratch tile{scratch};
  const std::int64_t row = block_.first_row + tile_row, first_panel = token_tile * kTilePanels;
  const std::int64_t rows = smaller(kTileRows, block_.rows - tile_row);
  const float* kept = kept_.tile(row, block_.first_token + first_panel * kColumns);
  if (kept != nullptr) return differentiate<true>(tile_row, token_tile, nullptr, kept);
  load_tile_bias<T>(p_, map_, row, rows, tile.bias());
  multiply_logits<T>(p_, packed_, row, rows, first_panel,
                     smaller(kTilePanels, packed_.panels() - first_panel), tile.weight(),
                     tile.logits());
  differentiate<false>(tile_row, token_tile, tile.bias(), tile.logits());
}

template <class T>
template <bool kFinal>
void LogitGradient<T>::differentiate(std::int64_t tile_row, std::int64_t token_tile,
                                     const float* bias, const float* logits) {
  Vec row_sums[kTileRows] = {};
  const auto column = map_.softcap > 0.0f ? differentiate_column<Gradient, true, kFinal>
                                          : differentiate_column<Gradient, false, kFinal>;
  const std::int64_t rows = smaller(kTileRows, block_.rows - tile_row);
  const std::int64_t first = token_tile * kTileTokens;
  const std::int64_t tokens = smaller(kTileTokens, block_.tokens - first);
  Gradient* gradient = reinterpret_cast<Gradient*>(gradients_.data()) + tile_row * stride_ + first;
  for (std::int64_t t = 0; t < tokens; t += kWidth) {
    const TokenTerms terms =
        TokenTerms::of(p_, map_, block_.first_token + first + t, block_.first_row + tile_row);
    column(map_, terms, p_.grad_entropy != nullptr, bias, rows, column_of(logits, t), gradient + t,
           stride_, bias_.wanted() ? row_sums : nullptr);
  }
  if (bias_.wanted()) bias_.add_tile(tile_row, token_tile, row_sums, rows);
}

}  // namespace SUDER_ISA
}  // namespace suder
