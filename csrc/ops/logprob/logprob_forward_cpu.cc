#include "common/dtype.h"
#include "ops/logprob/row.h"

namespace suder::SUDER_ISA {
namespace {

template <bool kSoftcap, bool kEntropy, class T>
void forward_row(const LogprobForward& p, std::int64_t row) {
  const std::int64_t target = p.target[row];
  if (target == p.ignore_index) {
    p.logprob[row] = 0.0f;
    if (p.lse) p.lse[row] = 0.0f;
    if constexpr (kEntropy) p.entropy[row] = 0.0f;
    return;
  }
  const T* logits = static_cast<const T*>(p.logits.data) + row * p.logits.stride;
  const RowLse r = row_lse<kSoftcap, kEntropy>(p, logits);
  const float chosen = capped<kSoftcap>(broadcast(to_float(logits[target])), p.softcap)[0];
  const float z = (chosen - r.origin) * (1.0f / p.temperature);
  p.logprob[row] = log_probability(z, r.state);
  if (p.lse) p.lse[row] = static_cast<float>(double{r.origin} / p.temperature + lse(r.state));
  if constexpr (kEntropy) p.entropy[row] = entropy(r.state);
}

template <bool kSoftcap, bool kEntropy>
void forward(const LogprobForward& p) {
  dispatch_dtype(p.dtype, [&]<class T>() {
    for_each_row(p, [&](std::int64_t row) { forward_row<kSoftcap, kEntropy, T>(p, row); });
  });
}

}  // namespace

void logprob_forward_cpu(const LogprobForward& p) {
  if (p.softcap > 0.0f) {
    p.entropy ? forward<true, true>(p) : forward<true, false>(p);
  } else {
    p.entropy ? forward<false, true>(p) : forward<false, false>(p);
  }
}

}  // namespace suder::SUDER_ISA
