// grad_hidden += G^T weight. Sums run over the blocks of the vocabulary, in the result itself if it
// is float32, else in memory of their own that is rounded at the end.
#pragma once

#include "cpu/workspace.h"
#include "ops/linear_logprob/gradient_matrix.h"
#include "ops/linear_logprob/gradient_product.h"

namespace suder {
inline namespace SUDER_ISA {

template <class T>
class HiddenGradient {
 public:
  HiddenGradient(const LinearLogprobBackward& params, const BackwardBlock& block)
      : p_(params),
        block_(block),
        weight_(ceil_div(features(), kColumns) * b_panel_size(units<Units>(block.max_rows))),
        gradients_(ceil_div(block.max_tokens, kRows) * a_panel_size(units<Units>(block.max_rows))),
        direct_(float32_gradients<T>(params) || params.float32_hidden),
        sums_(direct_ ? 0 : params.hidden.rows * features()) {}

  // Of the block of the vocabulary: the weight, the right operand.
  void pack_weight(int threads) {
    if (!wanted()) return;
    pack_rows<T>(threads, p_.weight, block_.first_row, block_.rows, nullptr, weight_.data());
  }

  // The left operand, one panel a task.
  std::int64_t pack_tasks() const { return wanted() ? ceil_div(block_.tokens, kRows) : 0; }
  void pack(const GradientMatrix<T>& gradient, std::int64_t panel) {
    pack_a_transposed(gradient.data + panel * kRows, gradient.stride, block_.rows,
                      gradients_.data() + panel * a_panel_size(units<Units>(block_.rows)));
  }

  std::int64_t tasks() const {
    return wanted() ? ceil_div(block_.tokens, kTileRows) * groups() : 0;
  }
  void multiply(std::int64_t task) {
    const std::int64_t first = task / groups() * kTileRows, group = task % groups();
    const std::int64_t stride = direct_ ? p_.grad_hidden.stride : features();
    float* sums = direct_ ? static_cast<float*>(p_.grad_hidden.data) : sums_.data();
    const GradientProduct<T> product{gradients_.data(), weight_.data(), block_.tokens,
                                     units<Units>(block_.rows), features()};
    product.multiply(first, group,
                     sums + (block_.first_token + first) * stride + group * kGroup * kColumns,
                     stride, block_.first_row > 0);
  }

  // After the last block.
  void finish(int threads) {
    if (!wanted() || direct_) return;
    cpu::parallel_for(threads, p_.hidden.rows, [&](std::int64_t row, int) {
      T* target = static_cast<T*>(p_.grad_hidden.data) + row * p_.grad_hidden.stride;
      store_rounded(sums_.data() + row * features(), features(), 1, features(), target, 0);
    });
  }

 private:
  using Units = UnitsOf<T>;

  bool wanted() const { return p_.grad_hidden.data != nullptr; }
  std::int64_t features() const { return p_.hidden.cols; }
  std::int64_t groups() const { return ceil_div(ceil_div(features(), kColumns), kGroup); }

  const LinearLogprobBackward& p_;
  const BackwardBlock& block_;
  const cpu::Workspace weight_, gradients_;
  const bool direct_;
  const cpu::Workspace sums_;
};

}  // namespace SUDER_ISA
}  // namespace suder
