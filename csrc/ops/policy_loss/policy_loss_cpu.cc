#include "common/dtype.h"
#include "cpu/parallel.h"
#include "ops/policy_loss/one_sequence.h"

namespace suder::SUDER_ISA {
namespace {

// Waking a thread costs more than the exponentials of this many tokens.
constexpr std::int64_t kTokensWorthAThread = 1 << 13;

struct OneThread {
  std::int64_t first() const { return 0; }
  std::int64_t step() const { return 1; }
  double sum(double value) const { return value; }
};

}  // namespace

void policy_loss_cpu(const PolicyLoss& p, PolicyTotals* totals) {
  const int threads = p.tokens < kTokensWorthAThread ? 1 : p.threads;
  cpu::parallel_for(threads, p.sequences, [&](std::int64_t i, int) {
    const std::int64_t begin = p.cu_seqlens[i], end = p.cu_seqlens[i + 1];
    if (begin == end) {
      if (p.advantage_slope && !p.advantage_per_token) p.advantage_slope[i] = 0.0f;
      return;
    }
    const double scale = policy::scale_of(p, end - begin, p.max_length);
    totals[i] = policy::one_sequence(p, {i, begin, end, scale}, OneThread());
  });
}

}  // namespace suder::SUDER_ISA
