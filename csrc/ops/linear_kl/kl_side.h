// What the backward pass has of each side: its logits, their gradients, and what those are
// multiplied into.
#pragma once

#include "ops/linear_kl/head_tiles.h"
#include "ops/linear_kl/kl_gradient_tile.h"
#include "ops/linear_logprob/bias_gradient.h"
#include "ops/linear_logprob/hidden_gradient.h"
#include "ops/linear_logprob/weight_gradient.h"

namespace suder {
inline namespace SUDER_ISA {

template <class T>
class KlSide {
 public:
  using Gradient = GradientOf<T>;

  KlSide(const LinearLogprobBackward& params, const BackwardBlock& block)
      : wanted_(params.grad_hidden.data != nullptr || params.grad_weight.data != nullptr ||
                params.grad_bias != nullptr),
        block_(block),
        stride_(block.max_tokens + kWidth),
        head_(params, block.max_tokens, params.logits, params.logits_size),
        gradients_(wanted_ ? block.max_rows * stride_ : 0),
        hidden_(params, block),
        weight_(params, block),
        bias_(params, block) {}

  const LogitMap& map() const { return head_.map(); }
  bool wants_bias() const { return bias_.wanted(); }

  void pack_weight(int threads) { hidden_.pack_weight(threads); }
  void pack_tokens(int threads) {
    head_.pack(threads, block_.first_token, block_.tokens);
    weight_.pack_hidden(threads);
  }

  // The final logits of a tile: kept, or made again in the scratch.
  const float* logits(std::int64_t tile_row, std::int64_t token_tile, std::int64_t rows,
                      TileScratch tile) const {
    const std::int64_t row = block_.first_row + tile_row, first_panel = token_tile * kTilePanels;
    const float* kept = head_.kept(row, first_panel);
    if (kept != nullptr) return kept;
    head_.multiply(row, rows, first_panel, tile, tile.logits());
    const std::int64_t tokens = smaller(kTileTokens, block_.tokens - token_tile * kTileTokens);
    for (std::int64_t t = 0; t < tokens; t += kWidth) {
      head_.finish(rows, tile, column_of(tile.logits(), t), Vec{});
    }
    return tile.logits();
  }

  // Where the gradients of the vector of tokens from `token` of the chunk on go.
  GradientColumn<Gradient> column(std::int64_t tile_row, std::int64_t token, Vec* row_sums) const {
    if (!wanted_) return {};
    Gradient* data = reinterpret_cast<Gradient*>(gradients_.data());
    return {data + tile_row * stride_ + token, stride_, wants_bias() ? row_sums : nullptr};
  }
  void add_tile(std::int64_t tile_row, std::int64_t token_tile, const Vec* row_sums,
                std::int64_t rows) {
    if (wants_bias()) bias_.add_tile(tile_row, token_tile, row_sums, rows);
  }

  // Of the block, gradients packed as the left operands: so many tasks, then the products.
  std::int64_t pack_tasks() const { return wanted_ ? panels() + hidden_.pack_tasks() : 0; }
  void pack(std::int64_t task) {
    const GradientMatrix<T> matrix = {reinterpret_cast<const Gradient*>(gradients_.data()),
                                      stride_};
    if (task >= panels()) return hidden_.pack(matrix, task - panels());
    bias_.sum(task);
    weight_.pack(matrix, task);
  }
  std::int64_t tasks() const { return hidden_.tasks() + weight_.tasks(); }
  void multiply(std::int64_t task, float* scratch) {
    const std::int64_t first = hidden_.tasks();
    if (task < first) return hidden_.multiply(task);
    weight_.multiply(task - first, scratch);
  }
  void finish(int threads) { hidden_.finish(threads); }

 private:
  std::int64_t panels() const { return ceil_div(block_.rows, kRows); }

  const bool wanted_;
  const BackwardBlock& block_;
  const std::int64_t stride_;
  HeadTiles<T> head_;
  const cpu::Workspace gradients_;
  HiddenGradient<T> hidden_;
  WeightGradient<T> weight_;
  BiasGradient<T> bias_;
};

}  // namespace SUDER_ISA
}  // namespace suder
