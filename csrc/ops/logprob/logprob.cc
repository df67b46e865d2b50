// Checks and dispatch.
#include "suder/logprob.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "cpu/isa.h"
#include "cpu/workspace.h"

namespace suder {

SUDER_DECLARE_ISA(void logprob_forward_cpu(const LogprobForward& params))
SUDER_DECLARE_ISA(void logprob_backward_cpu(const LogprobBackward& params))

namespace {

void check(const Logprob& p) {
  if (!(p.temperature > 0.0f) || !std::isfinite(p.temperature)) {
    throw std::invalid_argument("logprob: temperature is " + std::to_string(p.temperature) +
                                "; it must be above 0 and finite");
  }
  if (!(p.softcap >= 0.0f) || !std::isfinite(p.softcap)) {
    throw std::invalid_argument("logprob: softcap is " + std::to_string(p.softcap) +
                                "; it must be above 0 and finite");
  }
  for (std::int64_t row = 0; row < p.logits.rows; ++row) {
    const std::int64_t target = p.target[row];
    if (target == p.ignore_index || (target >= 0 && target < p.logits.cols)) continue;
    throw std::out_of_range("logprob: target[" + std::to_string(row) + "] is " +
                            std::to_string(target) + "; it must be in [0, " +
                            std::to_string(p.logits.cols) + ") or equal to ignore_index (" +
                            std::to_string(p.ignore_index) + ")");
  }
}

}  // namespace

void logprob_forward(const LogprobForward& params) {
  check(params);
  SUDER_CALL_ISA(logprob_forward_cpu, params);
}

void logprob_backward(const LogprobBackward& params) {
  check(params);
  if (params.logits.rows > 0 && params.grad_entropy && !params.entropy) {
    throw std::invalid_argument("logprob_backward: grad_entropy needs the entropy");
  }
  const Matrix& grad = params.grad_logits;
  const std::int64_t bytes = params.dtype == DType::kFloat32 ? 4 : 2;
  cpu::use_huge_pages(grad.data, grad.rows * grad.stride * bytes);
  SUDER_CALL_ISA(logprob_backward_cpu, params);
}

}  // namespace suder
