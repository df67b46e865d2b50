// Checks and dispatch.
#include "suder/linear_logprob.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "cpu/isa.h"
#include "cpu/workspace.h"

namespace suder {

SUDER_DECLARE_ISA(void linear_logprob_forward_cpu(const LinearLogprobForward& params))
SUDER_DECLARE_ISA(void linear_logprob_backward_cpu(const LinearLogprobBackward& params))

namespace {

void check(const LinearLogprob& p) {
  if (p.hidden.cols != p.weight.cols) {
    throw std::invalid_argument("linear_logprob: hidden has " + std::to_string(p.hidden.cols) +
                                " features and weight " + std::to_string(p.weight.cols) +
                                "; they must be equal");
  }
  if (p.hidden.rows > 0 && p.weight.rows == 0) {
    throw std::invalid_argument("linear_logprob: weight has no rows, so there is no distribution");
  }
  if (!(p.temperature > 0.0f) || !std::isfinite(p.temperature)) {
    throw std::invalid_argument("linear_logprob: temperature must be positive and finite, got " +
                                std::to_string(p.temperature));
  }
  if (!(p.softcap >= 0.0f) || !std::isfinite(p.softcap)) {
    throw std::invalid_argument("linear_logprob: softcap must be positive and finite, got " +
                                std::to_string(p.softcap));
  }
  for (std::int64_t row = 0; row < p.hidden.rows; ++row) {
    const std::int64_t target = p.target[row];
    if (target == p.ignore_index || (target >= 0 && target < p.weight.rows)) continue;
    throw std::out_of_range("linear_logprob: target[" + std::to_string(row) + "] is " +
                            std::to_string(target) + ", neither in [0, " +
                            std::to_string(p.weight.rows) + ") nor ignore_index (" +
                            std::to_string(p.ignore_index) + ")");
  }
}

void use_huge_pages(const Matrix& m, DType dtype) {
  if (m.data != nullptr)
    cpu::use_huge_pages(m.data, m.rows * m.stride * (dtype == DType::kFloat32 ? 4 : 2));
}

}  // namespace

void linear_logprob_forward(const LinearLogprobForward& params) {
  check(params);
  cpu::use_huge_pages(params.logits, params.logits_size * 4);
  SUDER_CALL_ISA(linear_logprob_forward_cpu, params);
}

void linear_logprob_backward(const LinearLogprobBackward& params) {
  check(params);
  if (params.grad_entropy != nullptr && params.entropy == nullptr) {
    throw std::invalid_argument("linear_logprob_backward: grad_entropy needs the entropy");
  }
  if (params.add && !params.float32_gradients) {
    throw std::invalid_argument("linear_logprob_backward: add needs float32_gradients");
  }
  const DType dtype = params.float32_gradients ? DType::kFloat32 : params.dtype;
  use_huge_pages(params.grad_hidden, params.float32_hidden ? DType::kFloat32 : dtype);
  use_huge_pages(params.grad_weight, dtype);
  SUDER_CALL_ISA(linear_logprob_backward_cpu, params);
}

}  // namespace suder
