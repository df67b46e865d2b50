#include <cmath>

#include "common/dtype.h"
#include "cpu/parallel.h"
#include "suder/policy_loss.h"

namespace suder::SUDER_ISA {
namespace {

// Waking a thread costs more than the exponentials of this many tokens.
constexpr std::int64_t kTokensWorthAThread = 1 << 13;

constexpr double kMaxLogRatio = 700.0;

// -min(ratio * advantage, clamp(ratio) * advantage) and its derivatives.
struct Surrogate {
  double value;
  double log_ratio_slope;
  double advantage_slope;
};

// Comparisons are written so that NaN takes the unclipped branch and stays NaN. A ratio that is too
// much for float32 stays finite here: times an advantage of 0 it is 0.
Surrogate surrogate(const PolicyLoss& p, double log_ratio, double advantage) {
  const double ratio = std::exp(log_ratio > kMaxLogRatio ? kMaxLogRatio : log_ratio);
  const double low = 1.0 - p.clip_low, high = 1.0 + p.clip_high;
  const double clipped = ratio < low ? low : ratio > high ? high : ratio;
  if (ratio * advantage > clipped * advantage) return {-clipped * advantage, 0.0, -clipped};
  return {-ratio * advantage, -ratio * advantage, -ratio};
}

double token_weight(const PolicyLoss& p, std::int64_t length) {
  if (p.reduction == PolicyReduction::kToken) return 1.0 / static_cast<double>(p.tokens);
  const double per =
      static_cast<double>(p.reduction == PolicyReduction::kConstant ? p.max_length : length);
  return 1.0 / (static_cast<double>(p.sequences) * per);
}

// exp(d) - 1 - d, which nearly cancels where d is small.
double rest_of_exp(double d) {
  return std::fabs(d) < 1e-5 ? d * d * (0.5 + d / 6.0) : std::expm1(d) - d;
}

// The KL estimate k3 (Schulman, "Approximating KL divergence", 2020) of one sequence.
double add_kl(const PolicyLoss& p, std::int64_t begin, std::int64_t end, double weight) {
  double sum = 0.0;
  for (std::int64_t t = begin; t < end; ++t) {
    const double d = static_cast<double>(p.ref_logprob[t]) - p.logprob[t];
    sum += rest_of_exp(d);
    if (p.kl_slope) p.kl_slope[t] = static_cast<float>(-weight * p.kl_coef * std::expm1(d));
  }
  return p.kl_coef * sum;
}

double one_sequence(const PolicyLoss& p, std::int64_t sequence) {
  const std::int64_t begin = p.cu_seqlens[sequence], end = p.cu_seqlens[sequence + 1];
  if (p.advantage_slope) p.advantage_slope[sequence] = 0.0f;
  if (begin == end) return 0.0;
  const double length = static_cast<double>(end - begin);
  const double weight = token_weight(p, end - begin), advantage = p.advantage[sequence];
  double value = 0.0, advantage_slope = 0.0;
  if (p.level == PolicyLevel::kSequence) {
    double log_ratio = 0.0;
    for (std::int64_t t = begin; t < end; ++t) {
      log_ratio += static_cast<double>(p.logprob[t]) - p.old_logprob[t];
    }
    const Surrogate s = surrogate(p, log_ratio / length, advantage);
    value = length * s.value;
    advantage_slope = length * s.advantage_slope;
    const float slope = static_cast<float>(weight * s.log_ratio_slope);
    for (std::int64_t t = begin; p.ratio_slope && t < end; ++t) p.ratio_slope[t] = slope;
  } else {
    for (std::int64_t t = begin; t < end; ++t) {
      const Surrogate s =
          surrogate(p, static_cast<double>(p.logprob[t]) - p.old_logprob[t], advantage);
      value += s.value;
      advantage_slope += s.advantage_slope;
      if (p.ratio_slope) p.ratio_slope[t] = static_cast<float>(weight * s.log_ratio_slope);
    }
  }
  if (p.advantage_slope) p.advantage_slope[sequence] = static_cast<float>(weight * advantage_slope);
  if (p.ref_logprob != nullptr) value += add_kl(p, begin, end, weight);
  return weight * value;
}

}  // namespace

void policy_loss_cpu(const PolicyLoss& p, double* totals) {
  const int threads = p.tokens < kTokensWorthAThread ? 1 : p.threads;
  cpu::parallel_for(threads, p.sequences, [&](std::int64_t sequence, int) {
    totals[sequence] = one_sequence(p, sequence);
  });
}

}  // namespace suder::SUDER_ISA
