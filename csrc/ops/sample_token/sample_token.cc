// Checks and dispatch.
#include "suder/sample_token.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "cpu/isa.h"

namespace suder {

SUDER_DECLARE_ISA(void sample_token_cpu(const SampleToken& params))
SUDER_DECLARE_ISA(void linear_sample_token_cpu(const LinearSampleToken& params))

namespace {

void check(const Draw& p, std::int64_t rows, std::int64_t vocab, float temperature) {
  if (rows > 0 && (vocab < 1 || vocab > std::numeric_limits<std::int32_t>::max())) {
    throw std::invalid_argument("sample_token: there are " + std::to_string(vocab) +
                                " tokens to choose from; it takes 1 to 2147483647");
  }
  if (!(temperature > 0.0f) || !std::isfinite(temperature)) {
    throw std::invalid_argument("sample_token: temperature is " + std::to_string(temperature) +
                                "; it must be above 0 and finite");
  }
  if (p.top_k < 0 || !(p.top_p > 0.0 && p.top_p <= 1.0)) {
    throw std::invalid_argument(
        "sample_token: top_k takes 0 or more, top_p a number in (0, 1]; got " +
        std::to_string(p.top_k) + " and " + std::to_string(p.top_p));
  }
}

}  // namespace

void sample_token(const SampleToken& params) {
  check(params, params.logits.rows, params.logits.cols, params.temperature);
  SUDER_CALL_ISA(sample_token_cpu, params);
}

void linear_sample_token(const LinearSampleToken& params) {
  const LinearLogprob& head = params.head;
  if (head.hidden.cols != head.weight.cols) {
    throw std::invalid_argument("linear_sample_token: hidden has " +
                                std::to_string(head.hidden.cols) + " features and weight " +
                                std::to_string(head.weight.cols) + "; they must be equal");
  }
  check(params, head.hidden.rows, head.weight.rows, head.temperature);
  SUDER_CALL_ISA(linear_sample_token_cpu, params);
}

}  // namespace suder
