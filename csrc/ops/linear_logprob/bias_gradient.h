// grad_bias: the sums of a block's logit gradients over the tokens, tile by tile, chunk by chunk.
#pragma once

#include "cpu/workspace.h"
#include "ops/linear_logprob/backward_block.h"

namespace suder {
inline namespace SUDER_ISA {

template <class T>
class BiasGradient {
 public:
  BiasGradient(const LinearLogprobBackward& params, const BackwardBlock& block)
      : p_(params),
        block_(block),
        parts_(wanted() ? ceil_div(block.max_tokens, kTileTokens) * block.max_rows : 0),
        sums_(wanted() ? block.max_rows : 0) {}

  bool wanted() const { return p_.grad_bias != nullptr; }

  // What the tokens of one tile add to the rows of the block from `tile_row` on.
  void add_tile(std::int64_t tile_row, std::int64_t token_tile, const Vec* row_sums,
                std::int64_t rows) {
    float* parts = parts_.data() + token_tile * block_.max_rows + tile_row;
    for (std::int64_t i = 0; i < rows; ++i) parts[i] = horizontal_sum(row_sums[i]);
  }

  // Adds this chunk's tiles for the rows of one panel.
  void sum(std::int64_t panel) {
    if (!wanted()) return;
    const std::int64_t end = smaller(block_.rows, (panel + 1) * kRows);
    for (std::int64_t i = panel * kRows; i < end; ++i) {
      const std::int64_t v = block_.first_row + i;
      const float before = p_.add ? static_cast<float*>(p_.grad_bias)[v] : 0.0f;
      float sum = block_.first_token == 0 ? before : sums_.data()[i];
      for (std::int64_t tile = 0; tile < ceil_div(block_.tokens, kTileTokens); ++tile) {
        sum += parts_.data()[tile * block_.max_rows + i];
      }
      sums_.data()[i] = sum;
      if (p_.float32_gradients) {
        static_cast<float*>(p_.grad_bias)[v] = sum;
      } else {
        static_cast<T*>(p_.grad_bias)[v] = from_float<T>(sum);
      }
    }
  }

 private:
  const LinearLogprobBackward& p_;
  const BackwardBlock& block_;
  const cpu::Workspace parts_, sums_;
};

}  // namespace SUDER_ISA
}  // namespace suder
