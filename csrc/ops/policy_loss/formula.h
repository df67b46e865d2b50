// One token's surrogate and KL estimate with their derivatives, for any backend. The paper of each
// is named beside its twin in suder_ext/reference/policy.py.
//
// Comparisons are written so that NaN takes the branch in which it stays NaN.
#pragma once

#include <cmath>

#include "common/dtype.h"
#include "suder/policy_loss.h"

#if defined(__CUDACC__)
#define SUDER_FORMULA __host__ __device__ inline
#else
#define SUDER_FORMULA inline
#endif

namespace suder {
inline namespace SUDER_ISA {
namespace policy {

// A ratio that is too much for float32 stays finite here: times an advantage of 0 it is 0.
constexpr double kMaxLogRatio = 700.0;
// So does the product of a ratio and an estimate.
constexpr double kMaxFactor = 600.0;
// VESPO's limits of a token's and of a sequence's log-ratio: log(1e-8) and 20.
constexpr double kMinLogWeight = -18.420680743952367;
constexpr double kMaxLogWeight = 20.0;

struct Term {
  double value;
  double ratio_slope;    // by the log-ratio
  double logprob_slope;  // by logprob where a ratio beside it is held constant
  double advantage_slope;
};

struct Estimate {
  double value;
  double slope;          // by logprob - ref_logprob
  double ratio_slope;    // by the log-ratio that corrects it
  double logprob_slope;  // by logprob, through both, where the log-ratio is the token's own
};

SUDER_FORMULA double bounded(double x, double low, double high) {
  return x < low ? low : x > high ? high : x;
}

SUDER_FORMULA double exp_of(double x, double most) { return exp(x > most ? most : x); }

SUDER_FORMULA double for_sign(const BySign& value, bool positive) {
  return positive ? value.positive : value.negative;
}

// -min(min(ratio, delta) * advantage, clamp(ratio) * advantage)
SUDER_FORMULA Term clip(const PolicyLossOptions& o, double log_ratio, double advantage) {
  const double ratio = exp_of(log_ratio, kMaxLogRatio);
  const double clipped = bounded(ratio, 1.0 - o.clip_low, 1.0 + o.clip_high);
  const bool cut = ratio > o.delta;
  const double kept = cut ? o.delta : ratio;
  if (kept * advantage > clipped * advantage) return {-clipped * advantage, 0.0, 0.0, -clipped};
  return {-kept * advantage, cut ? 0.0 : -kept * advantage, 0.0, -kept};
}

// The log-likelihood times a factor that has no gradient.
SUDER_FORMULA Term weighted_likelihood(double factor, double logprob, double advantage) {
  return {-factor * advantage * logprob, 0.0, -factor * advantage, -factor * logprob};
}

SUDER_FORMULA Term sapo(const PolicyLossOptions& o, double log_ratio, double advantage) {
  const double ratio = exp_of(log_ratio, kMaxLogRatio);
  const double temperature = for_sign(o.sapo_temperature, advantage > 0.0);
  const double x = temperature * (ratio - 1.0);
  const double gate = 1.0 / (1.0 + exp(-x)), rest = 1.0 / (1.0 + exp(x));
  const double soft = 4.0 / temperature * gate;
  return {-soft * advantage, -4.0 * gate * rest * ratio * advantage, 0.0, -soft};
}

SUDER_FORMULA double gamma_weight(const PolicyLossOptions& o, double log_weight, double advantage) {
  const bool positive = advantage >= 0.0;
  const double k = for_sign(o.vespo_k, positive), lambda = for_sign(o.vespo_lambda, positive);
  return exp(lambda + k * log_weight - lambda * exp(log_weight));
}

// `log_ratio`: the token's own, or the one that its sequence shares.
SUDER_FORMULA Term term_of(const PolicyLossOptions& o, double log_ratio, double logprob,
                           double advantage) {
  switch (o.surrogate) {
    case PolicySurrogate::kCispo: {
      const double ratio = exp_of(log_ratio, kMaxLogRatio);
      return weighted_likelihood(ratio > o.clip_high ? o.clip_high : ratio, logprob, advantage);
    }
    case PolicySurrogate::kSapo:
      return sapo(o, log_ratio, advantage);
    case PolicySurrogate::kVespo:
      return weighted_likelihood(gamma_weight(o, log_ratio, advantage), logprob, advantage);
    case PolicySurrogate::kGmpo: {
      const double value = -exp_of(log_ratio, kMaxLogRatio) * advantage;
      return {value, value, 0.0, -exp_of(log_ratio, kMaxLogRatio)};
    }
    case PolicySurrogate::kGpg:
      return weighted_likelihood(1.0, logprob, advantage);
    case PolicySurrogate::kClip:
      break;
  }
  return clip(o, log_ratio, advantage);
}

// Whether all tokens of a sequence have one log-ratio.
SUDER_FORMULA bool shares_ratio(const PolicyLossOptions& o) {
  return o.level == PolicyLevel::kSequence || o.surrogate == PolicySurrogate::kVespo ||
         o.surrogate == PolicySurrogate::kGmpo;
}

// What a token adds to it, and whether that follows its own.
SUDER_FORMULA bool gmpo_clips(const PolicyLossOptions& o, double log_ratio, double advantage) {
  return advantage == 0.0 || (advantage < 0.0 ? log_ratio < -o.clip_low : log_ratio > o.clip_high);
}

SUDER_FORMULA double shared_part(const PolicyLossOptions& o, double log_ratio, double advantage) {
  if (o.surrogate == PolicySurrogate::kVespo) {
    return bounded(log_ratio, -kMaxLogWeight, kMaxLogWeight);
  }
  if (o.surrogate == PolicySurrogate::kGmpo && gmpo_clips(o, log_ratio, advantage)) {
    return advantage == 0.0 ? 0.0 : advantage < 0.0 ? -o.clip_low : o.clip_high;
  }
  return log_ratio;
}

SUDER_FORMULA double shared_log_ratio(const PolicyLossOptions& o, double sum, double length) {
  if (o.surrogate == PolicySurrogate::kVespo) return bounded(sum, kMinLogWeight, kMaxLogWeight);
  return sum / length;
}

// exp(d) - 1 - d, which nearly cancels where d is small.
SUDER_FORMULA double rest_of_exp(double d) {
  return fabs(d) < 1e-5 ? d * d * (0.5 + d / 6.0) : expm1(d > kMaxFactor ? kMaxFactor : d) - d;
}

// The estimate k3 times a ratio, with the product as one exponent: of two that are far apart
// neither factor alone is a number. Through both factors, what is large cancels in logprob's slope.
SUDER_FORMULA Estimate corrected_k3(double d, double log_ratio) {
  const double ratio = exp_of(log_ratio, kMaxFactor);
  if (!(d > 1.0)) {
    const double value = ratio * rest_of_exp(d);
    return {value, -ratio * expm1(d), value, -ratio * d};
  }
  const double product = exp_of(log_ratio + d, kMaxFactor);
  const double value = product * (1.0 - (1.0 + d) * exp(-d));
  return {value, product * expm1(-d), value, -ratio * d};
}

SUDER_FORMULA Estimate kl_estimate(const PolicyLossOptions& o, double d, double log_ratio) {
  if (o.kl_estimator == KlEstimator::kK3) {
    if (o.kl_bias_correction) return corrected_k3(d, log_ratio);
    const double slope = -expm1(d > kMaxFactor ? kMaxFactor : d);
    return {rest_of_exp(d), slope, 0.0, slope};
  }
  const bool square = o.kl_estimator == KlEstimator::kK2;
  const double value = square ? 0.5 * d * d : -d, slope = square ? -d : 1.0;
  if (!o.kl_bias_correction) return {value, slope, 0.0, slope};
  const double ratio = exp_of(log_ratio, kMaxFactor);
  return {ratio * value, ratio * slope, ratio * value, ratio * (value + slope)};
}

struct Clipped {
  bool low, high;
};

// Whether the clip stopped this token: `own` is its log-ratio, `ratio` that of the level.
SUDER_FORMULA Clipped clipped(const PolicyLossOptions& o, double ratio, double own,
                              double advantage) {
  switch (o.surrogate) {
    case PolicySurrogate::kClip:
      return {advantage < 0.0 && ratio < 1.0 - o.clip_low,
              advantage > 0.0 && ratio > 1.0 + o.clip_high};
    case PolicySurrogate::kCispo:
      return {false, advantage > 0.0 && ratio > o.clip_high};
    case PolicySurrogate::kGmpo:
      return {advantage < 0.0 && own < -o.clip_low, advantage > 0.0 && own > o.clip_high};
    default:
      return {false, false};
  }
}

}  // namespace policy
}  // namespace SUDER_ISA
}  // namespace suder
