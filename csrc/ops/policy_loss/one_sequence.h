// The loss and all slopes of one sequence, by one thread (CPU) or by a block of them (CUDA). In
// float64: old and new log-probabilities nearly cancel.
//
// Lanes say which tokens a thread takes (first(), step()) and add a number over the threads
// (sum()).
#pragma once

#include "ops/policy_loss/formula.h"

#if defined(__CUDACC__)
#define SUDER_LANES __device__ inline
#else
#define SUDER_LANES inline
#endif

namespace suder {
inline namespace SUDER_ISA {
namespace policy {

struct Sequence {
  std::int64_t index, begin, end;
  double scale;  // a token's part of the loss is its value times this
};

// Each token's part of the loss is its value times this. `longest`: of kConstant.
SUDER_FORMULA double scale_of(const PolicyLoss& p, std::int64_t length, std::int64_t longest) {
  const bool own = p.num_items == 0.0;
  if (p.reduction == PolicyReduction::kToken) {
    return 1.0 / (own ? static_cast<double>(p.tokens) : p.num_items);
  }
  const double sequences = own ? static_cast<double>(p.sequences) : p.num_items;
  if (p.reduction == PolicyReduction::kSum) return 1.0 / sequences;
  const bool constant = p.reduction == PolicyReduction::kConstant;
  return 1.0 / (sequences * static_cast<double>(constant ? longest : length));
}

struct Token {
  double log_ratio, advantage, weight;
};

SUDER_FORMULA Token token_at(const PolicyLoss& p, const Sequence& s, std::int64_t t) {
  return {static_cast<double>(p.logprob[t]) - p.old_logprob[t],
          p.advantage[p.advantage_per_token ? t : s.index],
          p.token_weight != nullptr ? static_cast<double>(p.token_weight[t]) : 1.0};
}

SUDER_FORMULA Estimate kl_at(const PolicyLoss& p, std::int64_t t, double log_ratio) {
  if (p.ref_logprob == nullptr) return {0.0, 0.0, 0.0, 0.0};
  return kl_estimate(p, static_cast<double>(p.ref_logprob[t]) - p.logprob[t], log_ratio);
}

// `ratio_slope`: the slope that reaches this token's log-ratio, but for its own KL estimate's.
SUDER_FORMULA void write_slopes(const PolicyLoss& p, const Sequence& s, std::int64_t t,
                                const Term& term, double weight, const Estimate& kl,
                                double ratio_slope) {
  const bool own = p.kl_bias_correction && p.level == PolicyLevel::kToken;
  if (p.ratio_slope) {
    const double slope = own ? ratio_slope + p.kl_coef * kl.ratio_slope : ratio_slope;
    p.ratio_slope[t] = static_cast<float>(s.scale * slope);
  }
  if (p.kl_slope) p.kl_slope[t] = static_cast<float>(s.scale * p.kl_coef * kl.slope);
  if (p.logprob_slope) {
    const double estimate = p.kl_coef * (own ? kl.logprob_slope : kl.slope);
    p.logprob_slope[t] =
        static_cast<float>(s.scale * (ratio_slope + weight * term.logprob_slope + estimate));
  }
  if (p.advantage_slope && p.advantage_per_token) {
    p.advantage_slope[t] = static_cast<float>(s.scale * weight * term.advantage_slope);
  }
  if (p.weight_slope) p.weight_slope[t] = static_cast<float>(s.scale * term.value);
}

template <class Lanes>
SUDER_LANES double log_ratio_of(const PolicyLoss& p, const Sequence& s, const Lanes& lanes) {
  double sum = 0.0;
  for (std::int64_t t = s.begin + lanes.first(); t < s.end; t += lanes.step()) {
    const Token token = token_at(p, s, t);
    sum += shared_part(p, token.log_ratio, token.advantage);
    if (p.sampler_log_ratio != nullptr) sum += p.sampler_log_ratio[t];
  }
  return shared_log_ratio(p, lanes.sum(sum), static_cast<double>(s.end - s.begin));
}

// In a loop of their own: beside the slopes there are no registers left.
template <class Lanes>
SUDER_LANES void add_metrics(const PolicyLoss& p, const Sequence& s, const Lanes& lanes,
                             double shared, PolicyTotals& totals) {
  const bool by_sequence = p.level == PolicyLevel::kSequence;
  double low = 0.0, high = 0.0, kl = 0.0, ratios = 0.0;
  for (std::int64_t t = s.begin + lanes.first(); t < s.end; t += lanes.step()) {
    const Token token = token_at(p, s, t);
    const double of_level = by_sequence ? shared : token.log_ratio;
    const double ratio = exp_of(of_level, kMaxLogRatio);
    const Clipped stopped = clipped(p, ratio, token.log_ratio, token.advantage);
    low += stopped.low ? 1.0 : 0.0;
    high += stopped.high ? 1.0 : 0.0;
    kl += kl_at(p, t, of_level).value;
    ratios += ratio;
  }
  // Where a sequence has one ratio, it counts once.
  const double count = by_sequence ? static_cast<double>(s.end - s.begin) : 1.0;
  totals.metrics[0] = lanes.sum(low) / count;
  totals.metrics[1] = lanes.sum(high) / count;
  totals.metrics[2] = lanes.sum(kl);
  totals.metrics[3] = lanes.sum(ratios) / count;
}

// Of a sequence that is not empty.
template <class Lanes>
SUDER_LANES PolicyTotals one_sequence(const PolicyLoss& p, const Sequence& s, const Lanes& lanes) {
  const bool shares = shares_ratio(p), by_sequence = p.level == PolicyLevel::kSequence;
  const double shared = shares ? log_ratio_of(p, s, lanes) : 0.0;
  double value = 0.0, ratio_slope = 0.0, advantage_slope = 0.0, kl_sum = 0.0, kl_ratio_slope = 0.0;
  PolicyTotals totals;
  for (std::int64_t t = s.begin + lanes.first(); t < s.end; t += lanes.step()) {
    const Token token = token_at(p, s, t);
    const double of_level = by_sequence ? shared : token.log_ratio;
    const Term term = term_of(p, shares ? shared : token.log_ratio, p.logprob[t], token.advantage);
    const Estimate kl = kl_at(p, t, of_level);
    value += token.weight * term.value;
    ratio_slope += token.weight * term.ratio_slope;
    advantage_slope += token.weight * term.advantage_slope;
    kl_sum += kl.value;
    kl_ratio_slope += kl.ratio_slope;
    if (!shares) write_slopes(p, s, t, term, token.weight, kl, token.weight * term.ratio_slope);
  }
  const double length = static_cast<double>(s.end - s.begin);
  if (shares) {
    ratio_slope = lanes.sum(ratio_slope);
    if (by_sequence && p.kl_bias_correction) ratio_slope += p.kl_coef * lanes.sum(kl_ratio_slope);
    for (std::int64_t t = s.begin + lanes.first(); t < s.end; t += lanes.step()) {
      const Token token = token_at(p, s, t);
      const Term term = term_of(p, shared, p.logprob[t], token.advantage);
      const Estimate kl = kl_at(p, t, by_sequence ? shared : token.log_ratio);
      const bool stopped =
          p.surrogate == PolicySurrogate::kGmpo && gmpo_clips(p, token.log_ratio, token.advantage);
      write_slopes(p, s, t, term, token.weight, kl, stopped ? 0.0 : ratio_slope / length);
    }
  }
  if (!p.advantage_per_token) {
    advantage_slope = lanes.sum(advantage_slope);
    if (p.advantage_slope && lanes.first() == 0) {
      p.advantage_slope[s.index] = static_cast<float>(s.scale * advantage_slope);
    }
  }
  value = lanes.sum(value);
  if (p.ref_logprob != nullptr) value += p.kl_coef * lanes.sum(kl_sum);
  totals.loss = s.scale * value;
  if (p.metrics) add_metrics(p, s, lanes, shared, totals);
  return totals;
}

// What the totals' metrics are divided by; `filled`: sequences with a token.
SUDER_FORMULA double metric_count(const PolicyLoss& p, int metric, std::int64_t filled) {
  return static_cast<double>(p.level == PolicyLevel::kSequence && metric != 2 ? filled : p.tokens);
}

}  // namespace policy
}  // namespace SUDER_ISA
}  // namespace suder
