// Checks and dispatch.
#include "suder/linear_kl.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "cpu/isa.h"
#include "cpu/workspace.h"

namespace suder {

SUDER_DECLARE_ISA(void linear_kl_forward_cpu(const LinearKlForward& params))
SUDER_DECLARE_ISA(void linear_kl_backward_cpu(const LinearKlBackward& params))

namespace {

void check(const LinearLogprob& policy, const LinearLogprob& reference) {
  if (policy.weight.rows != reference.weight.rows) {
    throw std::invalid_argument("linear_kl: weight has " + std::to_string(policy.weight.rows) +
                                " rows and ref_weight " + std::to_string(reference.weight.rows) +
                                "; they must be equal");
  }
  if (policy.hidden.rows > 0 && policy.weight.rows == 0) {
    throw std::invalid_argument("linear_kl: weight has no rows, so there is no distribution");
  }
  if (!(policy.temperature > 0.0f) || !std::isfinite(policy.temperature)) {
    throw std::invalid_argument("linear_kl: temperature must be positive and finite, got " +
                                std::to_string(policy.temperature));
  }
  if (!(policy.softcap >= 0.0f) || !std::isfinite(policy.softcap)) {
    throw std::invalid_argument("linear_kl: softcap must be positive and finite, got " +
                                std::to_string(policy.softcap));
  }
}

void use_huge_pages(const LinearLogprobBackward& p) {
  const std::int64_t size = p.dtype == DType::kFloat32 ? 4 : 2;
  for (const Matrix& m : {p.grad_hidden, p.grad_weight}) {
    if (m.data != nullptr) cpu::use_huge_pages(m.data, m.rows * m.stride * size);
  }
}

}  // namespace

void linear_kl_forward(const LinearKlForward& params) {
  check(params.policy, params.reference);
  cpu::use_huge_pages(params.logits, 2 * params.logits_size * 4);
  SUDER_CALL_ISA(linear_kl_forward_cpu, params);
}

void linear_kl_backward(const LinearKlBackward& params) {
  check(params.policy, params.reference);
  use_huge_pages(params.policy);
  use_huge_pages(params.reference);
  SUDER_CALL_ISA(linear_kl_backward_cpu, params);
}

}  // namespace suder
