// Checks, dispatch, and the sum over sequences in their order.
#include "suder/policy_loss.h"

#include <algorithm>
#include <vector>

#include "common/cu_seqlens.h"
#include "cpu/isa.h"

namespace suder {

// `totals` [B]: each sequence's part of the loss.
SUDER_DECLARE_ISA(void policy_loss_cpu(const PolicyLoss& params, double* totals))

void policy_loss(const PolicyLoss& params) {
  check_cu_seqlens("policy_loss", params.cu_seqlens, params.sequences, params.tokens);
  PolicyLoss p = params;
  if (p.max_length <= 0) {
    p.max_length = 1;
    for (std::int64_t i = 0; i < p.sequences; ++i) {
      p.max_length = std::max(p.max_length, p.cu_seqlens[i + 1] - p.cu_seqlens[i]);
    }
  }
  std::vector<double> totals(static_cast<std::size_t>(p.sequences));
  SUDER_CALL_ISA(policy_loss_cpu, p, totals.data());
  double loss = 0.0;
  for (double total : totals) loss += total;
  *p.loss = static_cast<float>(loss);
}

}  // namespace suder
