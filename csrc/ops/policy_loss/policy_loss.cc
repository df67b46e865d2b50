// Checks, dispatch, and the sums over sequences in their order.
#include "suder/policy_loss.h"

#include <algorithm>
#include <vector>

#include "common/cu_seqlens.h"
#include "cpu/isa.h"
#include "ops/policy_loss/one_sequence.h"

namespace suder {

// `totals` [B]: each sequence's part.
SUDER_DECLARE_ISA(void policy_loss_cpu(const PolicyLoss& params, PolicyTotals* totals))

void policy_loss(const PolicyLoss& params) {
  check_cu_seqlens("policy_loss", params.cu_seqlens, params.sequences, params.tokens);
  PolicyLoss p = params;
  if (p.max_length <= 0) {
    p.max_length = 1;
    for (std::int64_t i = 0; i < p.sequences; ++i) {
      p.max_length = std::max(p.max_length, p.cu_seqlens[i + 1] - p.cu_seqlens[i]);
    }
  }
  std::vector<PolicyTotals> totals(static_cast<std::size_t>(p.sequences));
  SUDER_CALL_ISA(policy_loss_cpu, p, totals.data());
  double loss = 0.0;
  for (const PolicyTotals& total : totals) loss += total.loss;
  *p.loss = static_cast<float>(loss);
  if (!p.metrics) return;
  std::int64_t filled = 0;
  for (std::int64_t i = 0; i < p.sequences; ++i) filled += p.cu_seqlens[i + 1] > p.cu_seqlens[i];
  for (int metric = 0; metric < 4; ++metric) {
    double sum = 0.0;
    for (const PolicyTotals& total : totals) sum += total.metrics[metric];
    p.metrics[metric] = static_cast<float>(sum / policy::metric_count(p, metric, filled));
  }
}

}  // namespace suder
