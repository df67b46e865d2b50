// One side's head: its hidden states packed, and tiles of its final logits.
#pragma once

#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/linear_logprob/logit_products.h"

namespace suder {
inline namespace SUDER_ISA {

template <class T>
class HeadTiles {
 public:
  // `chunk` tokens are packed at a time; `logits`: see KeptLogits.
  HeadTiles(const LinearLogprob& params, std::int64_t chunk, const float* logits,
            std::int64_t logits_size)
      : p_(params),
        map_(LogitMap::of<T>(params)),
        kept_(KeptLogits::of(logits, logits_size, params.hidden.rows)),
        packed_{params.hidden.cols, chunk, nullptr},
        memory_(packed_.size()) {
    packed_.data = memory_.data();
  }

  const LogitMap& map() const { return map_; }
  bool capped() const { return map_.softcap > 0.0f; }

  void pack(int threads, std::int64_t first_token, std::int64_t tokens) {
    first_token_ = first_token;
    packed_.tokens = tokens;
    cpu::parallel_for(threads, packed_.panels(), [&](std::int64_t panel, int) {
      packed_.pack(p_.hidden, first_token, panel);
    });
  }

  // Where the forward leaves the tile for the backward, or null.
  const float* kept(std::int64_t row, std::int64_t first_panel) const {
    return kept_.tile(row, first_token_ + first_panel * kColumns);
  }

  // Sums of products, to be finished.
  void multiply(std::int64_t row, std::int64_t rows, std::int64_t first_panel, TileScratch tile,
                float* logits) const {
    load_tile_bias<T>(p_, map_, row, rows, tile.bias());
    const std::int64_t panels = smaller(kTilePanels, packed_.panels() - first_panel);
    multiply_logits<T>(p_, packed_, row, rows, first_panel, panels, tile.weight(), logits);
  }

  // From the sums of one vector of tokens to final logits, in place; the largest of them and of
  // `highest`.
  Vec finish(std::int64_t rows, TileScratch tile, float* column, Vec highest) const {
    return capped() ? finish<true>(rows, tile.bias(), column, highest)
                    : finish<false>(rows, tile.bias(), column, highest);
  }

 private:
  template <bool kSoftcap>
  Vec finish(std::int64_t rows, const float* bias, float* column, Vec highest) const {
    for (std::int64_t i = 0; i < rows; ++i, column += kColumns) {
      const Vec z = map_.apply<kSoftcap>(load(column), bias[i]);
      store(column, z);
      highest = max(z, highest);
    }
    return highest;
  }

  const LinearLogprob& p_;
  const LogitMap map_;
  const KeptLogits kept_;
  PackedTokens<T> packed_;
  std::int64_t first_token_ = 0;
  const cpu::Workspace memory_;
};

}  // namespace SUDER_ISA
}  // namespace suder
