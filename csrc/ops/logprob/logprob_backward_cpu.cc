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
    const Vec z = fma(logit - origin, broadcast(inverse_temperature), broadcast(-relative_lse));
    return max(broadcast(kNegligible), z);
  }

  // From a probability and its logarithm.
  Vec at(Vec p, Vec log_p) const { return p * (lse - logprob - entropy * (log_p + row_entropy)); }

  // At the target, 1 - p without cancellation.
  float at_target(float log_p) const {
    return std::exp(log_p) * (lse - entropy * (log_p + row_entropy)) - logprob * std::expm1(log_p);
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
    const RowLse r = row_lse<kSoftcap, false>(p, logits, p.target[row]);
    g.origin = r.origin;
    g.relative_lse = lse(r.state);
  }
  return g;
}

template <bool kSoftcap, class T>
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
  Block block;
  for (std::int64_t begin = 0; begin < vocab; begin += kBlockLogits) {
    block.load_from<kSoftcap>(logits, begin, vocab, p.softcap);
    for (std::int64_t i = 0; i < block.size; i += kGroup * kWidth) {
      Vec log_p[kGroup], probability[kGroup];
      for (int j = 0; j < kGroup; ++j) {
        const Vec logit = load(block.logit + i + j * kWidth);
        log_p[j] = probability[j] = g.log_probability(logit, inverse_temperature);
      }
      exp(probability);
      for (int j = 0; j < kGroup; ++j) {
        const std::int64_t at = i + j * kWidth;
        const Vec result = g.at(probability[j], log_p[j]) *
                           slope<kSoftcap>(load(block.logit + at), p.softcap, inverse_temperature);
        if (at + kWidth <= block.size) {
          store_floats(grad + begin + at, result);
        } else {
          for (int k = 0; at + k < block.size; ++k) grad[begin + at + k] = from_float<T>(result[k]);
        }
      }
    }
    if (!block.holds(target)) continue;
    const Vec logit = broadcast(block.logit[target - begin]);
    const float result = g.at_target(g.log_probability(logit, inverse_temperature)[0]) *
                         slope<kSoftcap>(logit, p.softcap, inverse_temperature)[0];
    grad[target] = from_float<T>(result);
  }
}

template <bool kSoftcap>
void backward(const LogprobBackward& p) {
  dispatch_dtype(p.dtype, [&]<class T>() {
    for_each_row(p, [&](std::int64_t row) { backward_row<kSoftcap, T>(p, row); });
  });
}

}  // namespace

void logprob_backward_cpu(const LogprobBackward& p) {
  p.softcap > 0.0f ? backward<true>(p) : backward<false>(p);
}

}  // namespace suder::SUDER_ISA
