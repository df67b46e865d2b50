// grad_weight += G hidden. Sums run over the chunks of the tokens, in the result itself if it is
// float32, else in memory of their own; with a single chunk they are rounded while still in the
// cache of the task that made them.
#pragma once

#include "cpu/workspace.h"
#include "ops/linear_logprob/gradient_matrix.h"
#include "ops/linear_logprob/gradient_product.h"

namespace suder {
inline namespace SUDER_ISA {

template <class T>
class WeightGradient {
 public:
  WeightGradient(const LinearLogprobBackward& params, const BackwardBlock& block)
      : p_(params),
        block_(block),
        hidden_(ceil_div(features(), kColumns) * b_panel_size(units<Units>(block.max_tokens))),
        gradients_(ceil_div(block.max_rows, kRows) * a_panel_size(units<Units>(block.max_tokens))),
        direct_(float32_gradients<T>(params)),
        sums_(direct_ || block.one_chunk ? 0 : block.max_rows * features()),
        skip_(ceil_div(block.max_tokens, 4)) {}

  // Of the chunk of tokens: the hidden states, the right operand.
  void pack_hidden(int threads) {
    if (!wanted()) return;
    std::uint8_t* skip = reinterpret_cast<std::uint8_t*>(skip_.data());
    for (std::int64_t t = 0; t < block_.tokens; ++t) {
      skip[t] = p_.target[block_.first_token + t] == p_.ignore_index;
    }
    pack_rows<T>(threads, p_.hidden, block_.first_token, block_.tokens, skip, hidden_.data());
  }

  // The left operand, one panel.
  void pack(const GradientMatrix<T>& gradient, std::int64_t panel) {
    if (!wanted()) return;
    const std::int64_t row = panel * kRows;
    pack_a(gradient.data + row * gradient.stride, gradient.stride,
           smaller(kRows, block_.rows - row), block_.tokens,
           gradients_.data() + panel * a_panel_size(units<Units>(block_.tokens)));
  }

  std::int64_t tasks() const { return wanted() ? ceil_div(block_.rows, kTileRows) * groups() : 0; }
  void multiply(std::int64_t task, float* scratch) {  // kTileRows * kGroup * kColumns floats
    const std::int64_t first = task / groups() * kTileRows, group = task % groups();
    const std::int64_t column = group * kGroup * kColumns;
    const bool accumulate = p_.add || block_.first_token > 0;
    const GradientProduct<T> product{gradients_.data(), hidden_.data(), block_.rows,
                                     units<Units>(block_.tokens), features()};
    const std::int64_t offset = (block_.first_row + first) * p_.grad_weight.stride + column;
    if (!accumulate && group == 0) populate(offset, smaller(kTileRows, block_.rows - first));
    if (direct_) {
      float* target = static_cast<float*>(p_.grad_weight.data) + offset;
      return product.multiply(first, group, target, p_.grad_weight.stride, accumulate);
    }
    float* sums = block_.one_chunk ? scratch : sums_.data() + first * features() + column;
    const std::int64_t stride = block_.one_chunk ? kGroup * kColumns : features();
    product.multiply(first, group, sums, stride, accumulate);
    if (block_.first_token + block_.tokens < p_.hidden.rows) return;
    store_rounded(sums, stride, smaller(kTileRows, block_.rows - first),
                  smaller(kGroup * kColumns, features() - column),
                  static_cast<T*>(p_.grad_weight.data) + offset, p_.grad_weight.stride);
  }

 private:
  using Units = UnitsOf<T>;

  bool wanted() const { return p_.grad_weight.data != nullptr; }
  void populate(std::int64_t offset, std::int64_t rows) const {
    const std::int64_t bytes = direct_ ? sizeof(float) : sizeof(T);
    const std::int64_t row_bytes = p_.grad_weight.stride * bytes;
    cpu::populate(static_cast<char*>(p_.grad_weight.data) + offset * bytes, rows * row_bytes,
                  p_.grad_weight.rows * row_bytes);
  }
  std::int64_t features() const { return p_.hidden.cols; }
  std::int64_t groups() const { return ceil_div(ceil_div(features(), kColumns), kGroup); }

  const LinearLogprobBackward& p_;
  const BackwardBlock& block_;
  const cpu::Workspace hidden_, gradients_;
  const bool direct_;
  const cpu::Workspace sums_, skip_;
};

}  // namespace SUDER_ISA
}  // namespace suder
