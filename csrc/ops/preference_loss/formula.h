// Loss and derivatives of one preference pair, for any backend. The paper of each formula is named
// beside its twin in suder_ext/reference/preference_formulas.py.
//
// Derivatives are by hand. A loss is a function of one difference of scores, or of the two
// log-ratios apart, or of the chosen likelihood; the chain rule is applied once, in pair_loss.
#pragma once

#include <cmath>

#include "common/dtype.h"
#include "suder/preference_loss.h"

#if defined(__CUDACC__)
#define SUDER_FORMULA __host__ __device__ inline
#else
#define SUDER_FORMULA inline
#endif

namespace suder {
inline namespace SUDER_ISA {
namespace preference {

constexpr double kNoOrder = 1e-6;              // an alpha so near 1 is 1
constexpr double kMaxExponent = 88.0;          // an f-divergence's exp() stays finite in float32
constexpr double kMaxMeanLogprob = -0x1p-126;  // so do ORPO's odds, p / (1 - p), where p is 1
constexpr double kLog2 = 0.69314718055994530942;

struct Pair {
  double chosen, rejected;       // log-ratios to the reference
  double inverse_chosen_length;  // 1 where the loss sums over tokens
  double inverse_rejected_length;
  double likelihood;        // log p(chosen) of the policy alone
  double likelihood_scale;  // 1 / (mean length of chosen), or 1; times the term's weight
};

struct PairLoss {
  double loss;
  double chosen_slope;  // by the chosen log-probability
  double rejected_slope;
};

struct Curve {
  double value;
  double slope;
};

SUDER_FORMULA double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

SUDER_FORMULA double log_sigmoid(double x) {
  return (x < 0.0 ? x : 0.0) - log1p(exp(x < 0.0 ? x : -x));
}

// t - log1p(t), which nearly agree where t is small.
SUDER_FORMULA double rest_of_log1p(double t) {
  return fabs(t) < 1e-5 ? t * t * (0.5 - t / 3.0) : t - log1p(t);
}

// How far x is above the logit of the label 1 - e, where sigmoid(x) is the label.
SUDER_FORMULA double above_label(double x, double e) {
  return e > 0.0 ? x - (log1p(-e) - log(e)) : -HUGE_VAL;
}

// The slope is sigmoid(x) - (1 - e), written so that neither end nor the label itself cancels.
SUDER_FORMULA Curve logistic(double x, double e) {
  const double d = above_label(x, e);
  return {-(1.0 - e) * log_sigmoid(x) - e * log_sigmoid(-x),
          d < 0.0 ? (1.0 - e) * sigmoid(-x) * expm1(d) : -e * sigmoid(x) * expm1(-d)};
}

// KL((q, 1 - q) | (1 - e, e)) with q = sigmoid(x). Near its minimum 0, the terms cancel but for
// those of second order.
SUDER_FORMULA Curve exo(double x, double e) {
  const double q = sigmoid(x), other = sigmoid(-x), d = above_label(x, e);
  const double divergence =
      fabs(d) < 1.0 ? q * rest_of_log1p(e * expm1(-d)) + other * rest_of_log1p((1.0 - e) * expm1(d))
                    : q * (log_sigmoid(x) - log1p(-e)) + other * (log_sigmoid(-x) - log(e));
  return {divergence, q * other * d};
}

SUDER_FORMULA Curve robust(double x, double e) {
  const double tilt = e / (1.0 - 2.0 * e);  // log sigmoid(x) - log sigmoid(-x) is x
  return {-log_sigmoid(x) - tilt * x, -sigmoid(-x) - tilt};
}

SUDER_FORMULA Curve discopop(double x, double tau) {
  const double m = sigmoid(x / tau), other = sigmoid(-x / tau);
  // exp(-x) * m as one exponent: for x far below 0 the first factor alone overflows.
  const double exponential = exp(log_sigmoid(x / tau) - x);
  return {
      -log_sigmoid(x) * other + exponential,
      -sigmoid(-x) * other + log_sigmoid(x) * m * other / tau + exponential * (other / tau - 1.0)};
}

// f'(pi / pi_ref) as a function of the log-ratio.
SUDER_FORMULA Curve score(const PreferenceLossOptions& o, double log_ratio) {
  switch (o.f_divergence) {
    case FDivergence::kForwardKl: {
      if (-log_ratio > kMaxExponent) return {-expm1(kMaxExponent), 0.0};
      return {-expm1(-log_ratio), exp(-log_ratio)};
    }
    case FDivergence::kJsDivergence:  // log(2 sigmoid): 0 where the log-ratio is
      return {log_ratio > -1.0 ? -log1p(0.5 * expm1(-log_ratio)) : kLog2 + log_sigmoid(log_ratio),
              sigmoid(-log_ratio)};
    case FDivergence::kAlphaDivergence: {
      const double order = o.f_alpha - 1.0, power = order * log_ratio;
      if (fabs(order) < kNoOrder) break;
      if (power > kMaxExponent) return {expm1(kMaxExponent) / order, 0.0};
      return {expm1(power) / order, exp(power)};
    }
    case FDivergence::kReverseKl:
      break;
  }
  return {log_ratio, 1.0};
}

// A loss of the difference d of two (mean) scores.
SUDER_FORMULA Curve difference_loss(const PreferenceLossOptions& o, double d) {
  if (o.type == PreferenceLossType::kIpo) {
    const double error = d - 0.5 / o.beta;
    return {error * error, 2.0 * error};
  }
  const double x = o.beta * d - o.margin;
  Curve c{};
  switch (o.type) {
    case PreferenceLossType::kHinge:
      c = x >= 1.0 ? Curve{0.0, 0.0} : Curve{1.0 - x, -1.0};
      break;
    case PreferenceLossType::kExoPair:
      c = exo(x, o.label_smoothing);
      break;
    case PreferenceLossType::kRobust:
      c = robust(x, o.label_smoothing);
      break;
    case PreferenceLossType::kDiscopop:
      c = discopop(x, o.discopop_tau);
      break;
    default:
      c = logistic(x, o.label_smoothing);
  }
  return {c.value, o.beta * c.slope};
}

// log(p / (1 - p)) of a mean log-probability; a p of 1 counts as the nearest one below.
SUDER_FORMULA Curve log_odds(double mean) {
  const bool clamped = mean > kMaxMeanLogprob;
  const double x = clamped ? kMaxMeanLogprob : mean;
  const double log_rest = x > -kLog2 ? log(-expm1(x)) : log1p(-exp(x));
  return {x - log_rest, clamped ? 0.0 : -1.0 / expm1(x)};
}

SUDER_FORMULA PairLoss orpo(const PreferenceLossOptions& o, const Pair& p) {
  const Curve chosen = log_odds(p.chosen * p.inverse_chosen_length);
  const Curve rejected = log_odds(p.rejected * p.inverse_rejected_length);
  const double ratio = chosen.value - rejected.value;
  const double slope = -o.beta * sigmoid(-ratio);
  return {-o.beta * log_sigmoid(ratio) - p.likelihood * p.likelihood_scale,
          slope * chosen.slope * p.inverse_chosen_length - p.likelihood_scale,
          -slope * rejected.slope * p.inverse_rejected_length};
}

SUDER_FORMULA double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }

// sigmoid'(x) - sigmoid'(x - difference), which nearly agree where the difference or x is small.
SUDER_FORMULA double sigmoid_slope_change(double x, double difference) {
  const double y = x - difference;
  // Beyond, one of the two is below any float, and sinh is about to overflow.
  if (!(fabs(x) < 300.0 && fabs(y) < 300.0)) return sigmoid_slope(x) - sigmoid_slope(y);
  return -4.0 * sigmoid_slope(x) * sigmoid_slope(y) * sinh(0.5 * difference) * sinh(0.5 * (x + y));
}

// A loss of the two log-ratios apart.
SUDER_FORMULA PairLoss separate_loss(const PreferenceLossOptions& o, const Pair& p) {
  const double b = o.beta, c = b * p.chosen, r = b * p.rejected;
  switch (o.type) {
    case PreferenceLossType::kNcaPair:
      return {-log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r),
              b * (-sigmoid(-c) + 0.5 * sigmoid(c)), b * 0.5 * sigmoid(r)};
    case PreferenceLossType::kBcoPair:
      return {-log_sigmoid(c) - log_sigmoid(-r), -b * sigmoid(-c), b * sigmoid(r)};
    case PreferenceLossType::kSppoHard: {
      const double chosen = p.chosen - 0.5 / b, rejected = p.rejected + 0.5 / b;
      return {chosen * chosen + rejected * rejected, 2.0 * chosen, 2.0 * rejected};
    }
    case PreferenceLossType::kApoZero:
      return {sigmoid(-c) + sigmoid(r), -b * sigmoid_slope(c), b * sigmoid_slope(r)};
    default: {  // kApoDown
      const double d = b * (p.chosen - p.rejected);
      return {sigmoid(c) + sigmoid(-d), b * sigmoid_slope_change(c, r), b * sigmoid_slope(d)};
    }
  }
}

SUDER_FORMULA PairLoss pair_loss(const PreferenceLossOptions& o, const Pair& p) {
  switch (o.type) {
    case PreferenceLossType::kNcaPair:
    case PreferenceLossType::kBcoPair:
    case PreferenceLossType::kSppoHard:
    case PreferenceLossType::kApoZero:
    case PreferenceLossType::kApoDown:
      return separate_loss(o, p);
    case PreferenceLossType::kSft:
      return {-p.likelihood * p.likelihood_scale, -p.likelihood_scale, 0.0};
    case PreferenceLossType::kOrpo:
      return orpo(o, p);
    default:
      break;
  }
  const Curve chosen = score(o, p.chosen), rejected = score(o, p.rejected);
  const Curve c = difference_loss(
      o, chosen.value * p.inverse_chosen_length - rejected.value * p.inverse_rejected_length);
  PairLoss loss{c.value, c.slope * chosen.slope * p.inverse_chosen_length,
                -c.slope * rejected.slope * p.inverse_rejected_length};
  if (o.type == PreferenceLossType::kCpo) {
    loss.loss -= p.likelihood * p.likelihood_scale;
    loss.chosen_slope -= p.likelihood_scale;
  }
  return loss;
}

SUDER_FORMULA bool averages_tokens(PreferenceLossType type) {
  return type == PreferenceLossType::kIpo || type == PreferenceLossType::kSigmoidNorm ||
         type == PreferenceLossType::kSimpo || type == PreferenceLossType::kOrpo;
}

SUDER_FORMULA bool averages_rewards(PreferenceLossType type) {
  return type == PreferenceLossType::kSimpo || type == PreferenceLossType::kOrpo;
}

SUDER_FORMULA bool reference_free(PreferenceLossType type) {
  return type == PreferenceLossType::kSimpo || type == PreferenceLossType::kCpo ||
         type == PreferenceLossType::kOrpo;
}

SUDER_FORMULA bool sorts(PreferenceLossType type) {
  return type == PreferenceLossType::kAot || type == PreferenceLossType::kAotUnpaired;
}

// Whether both sequences have tokens, as far as is known; either length may be absent.
SUDER_FORMULA bool whole(const PreferenceLoss& p, std::int64_t i) {
  return (!p.chosen_length || p.chosen_length[i] > 0) &&
         (!p.rejected_length || p.rejected_length[i] > 0);
}

// What the sorting losses rank of pair i, and what they compare it with. NaN comes last: so do
// pairs that are not whole.
struct Compared {
  double own, other;
};

SUDER_FORMULA Compared compared(const PreferenceLoss& p, std::int64_t i) {
  if (!whole(p, i)) return {NAN, NAN};
  const double chosen = p.chosen[i], rejected = p.rejected[i];
  const double ref_chosen = p.ref_chosen ? p.ref_chosen[i] : 0.0;
  const double ref_rejected = p.ref_rejected ? p.ref_rejected[i] : 0.0;
  if (p.type == PreferenceLossType::kAot) return {chosen - rejected, ref_chosen - ref_rejected};
  return {chosen - ref_chosen, rejected - ref_rejected};
}

// An empty sequence counts as one token.
SUDER_FORMULA double inverse_length(const std::int64_t* length, std::int64_t i) {
  return 1.0 / static_cast<double>(length[i] < 1 ? 1 : length[i]);
}

}  // namespace preference
}  // namespace SUDER_ISA
}  // namespace suder
