// d(loss) / d(z_v) = grad_logprob * ([v == target] - p_v) + grad_lse * p_v
//                    - grad_entropy * p_v * (log p_v + entropy)
#include "common/dtype.h"
#include "ops/logprob/row.h"

namespace suder::SUDER_ISA {
namespace {

// Half a unit in the last place of a float32 lse up to here changes p by less than 1e-6 of itself.
// Beyond, the row's log-sum-exp is computed again, relative to an origin.
constexpr float kPreciseLse = 32.0f;

struct RowGradient {
  float logprob = 0.0f, lse = 0.0f, entropy = 0.0f;  // upstream
  float row_entropy = 0.0f;
  float origin = 0.0f, relative_lse = 0.0f;

  bool zero() const { return logprob == 0.0f && lse == 0.0f && entropy == 0.0f; }

  // log p of a logit.
  Vec log_probability(Vec logit, float inverse_temperature) const {
    return fma(logit - origin, broadcast(inverse_temperature), broadcast(-relative_lse));
  }

  // What a probability is multiplied with, from its logarithm.
  template <bool kEntropy>
  Vec factor(Vec log_p) const {
    if constexpr (!kEntropy) return broadcast(lse - logprob);
    return lse - logprob - entropy * (max(broadcast(kNegligible), log_p) + row_entropy);
  }

  // At the target, 1 - p without cancellation.
  float at_target(float log_p) const {
    return std::exp(log_p) * (lse - entropy * (std::fmax(kNegligible, log_p) + row_entropy)) -
           logprob * std::expm1(log_p);
  }
};

// d(final logit) / d(logit given), from the softcapped logit.
template <bool kSoftcap>
Vec slope(Vec capped, float softcap, float inverse_temperature) {
  if constexpr (!kSoftcap) return broadcast(inverse_temperature);
  const Vec t = capped * (1.0f / softcap);
  return (1.0f - t * t) * inverse_temperature;
}

template <bool kSoftcap, class T>
RowGradient row_gradient(const LogprobBackward& p, const T* logits, std::int64_t row) {
  RowGradient g;
  if (p.grad_logprob) g.logprob = p.grad_logprob[row];
  if (p.grad_lse) g.lse = p.grad_lse[row];
  if (p.grad_entropy) {
    g.entropy = p.grad_entropy[row];
    g.row_entropy = p.entropy[row];
  }
  g.relative_lse = p.lse[row];
  if (std::fabs(g.relative_lse) > kPreciseLse && !g.zero()) {
    const RowLse r = row_lse<kSoftcap, false>(p, logits);
    g.origin = r.origin;
    g.relative_lse = lse(r.state);
  }
  return g;
}

// The first `count` elements of a group.
template <class T>
void store_group(T* target, const Vec (&values)[kGroup], std::int64_t count) {
  if (count >= kGroupLogits) {
    for (int j = 0; j < kGroup; ++j) store_floats(target + j * kWidth, values[j]);
    return;
  }
  T rounded[kGroupLogits];
  for (int j = 0; j < kGroup; ++j) store_floats(rounded + j * kWidth, values[j]);
  for (std::int64_t i = 0; i < count; ++i) target[i] = rounded[i];
}

template <bool kSoftcap, bool kEntropy, class T>
void backward_row(const LogprobBackward& p, std::int64_t row) {
  const T* logits = static_cast<const T*>(p.logits.data) + row * p.logits.stride;
  T* grad = static_cast<T*>(p.grad_logits.data) + row * p.grad_logits.stride;
  const std::int64_t target = p.target[row], vocab = p.logits.cols;
  const bool ignored = target == p.ignore_index;
  const RowGradient g = ignored ? RowGradient{} : row_gradient<kSoftcap>(p, logits, row);
  if (g.zero()) {
    for (std::int64_t v = 0; v < vocab; ++v) grad[v] = from_float<T>(0.0f);
    return;
  }
  const float inverse_temperature = 1.0f / p.temperature;
  const Vec chosen = capped<kSoftcap>(broadcast(to_float(logits[target])), p.softcap);
  for_each_group<kSoftcap>(
      logits, vocab, p.softcap, [&](std::int64_t first, const Vec(&logit)[kGroup]) {
        Vec log_p[kGroup], grads[kGroup];
        for (int j = 0; j < kGroup; ++j) {
          log_p[j] = grads[j] = g.log_probability(logit[j], inverse_temperature);
        }
        exp(grads);
        for (int j = 0; j < kGroup; ++j) {
          grads[j] *= g.factor<kEntropy>(log_p[j]) *
                      slope<kSoftcap>(logit[j], p.softcap, inverse_temperature);
        }
        store_group(grad + first, grads, vocab - first);
      });
  const float at_target = g.at_target(g.log_probability(chosen, inverse_temperature)[0]);
  grad[target] =
      from_float<T>(at_target * slope<kSoftcap>(chosen, p.softcap, inverse_temperature)[0]);
}

template <bool kSoftcap, bool kEntropy>
void backward(const LogprobBackward& p) {
  dispatch_dtype(p.dtype, [&]<class T>() {
    for_each_row(p, [&](std::int64_t row) { backward_row<kSoftcap, kEntropy, T>(p, row); });
  });
}

}  // namespace

void logprob_backward_cpu(const LogprobBackward& p) {
  if (p.softcap > 0.0f) {
    p.grad_entropy ? backward<true, true>(p) : backward<true, false>(p);
  } else {
    p.grad_entropy ? backward<false, true>(p) : backward<false, false>(p);
  }
}

}  // namespace suder::SUDER_ISA
