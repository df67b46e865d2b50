// A token of a whole row of logits, nothing cut off: a pass for the largest, one for the
// exponentials, whose sums group by group then lead to the token.
#pragma once

#include "ops/logprob/row.h"
#include "suder/sample_token.h"

namespace suder {
inline namespace SUDER_ISA {

struct Drawn {
  std::int64_t token;
  float logprob, entropy;
};

inline constexpr Drawn kNoDistribution{0, NAN, NAN};

inline void write(const Draw& p, std::int64_t row, const Drawn& drawn) {
  p.token[row] = drawn.token;
  p.logprob[row] = drawn.logprob;
  p.entropy[row] = drawn.entropy;
}

// Finds where a running sum of weights first exceeds a level. If rounding keeps the sum of all
// from doing so, it is the last weight that is not 0.
class Crossing {
 public:
  explicit Crossing(double level) : level_(level) {}

  bool found() const { return found_; }
  std::int64_t place() const { return place_; }
  // Whether weights of this sum can be passed over as one.
  bool pass(double sum) {
    if (found_) return true;
    if (!(sum_ + sum <= level_)) return false;
    sum_ += sum;
    return true;
  }
  void add(double weight, std::int64_t place) {
    if (found_ || !(weight > 0.0)) return;
    sum_ += weight;
    place_ = place;
    found_ = sum_ > level_;
  }

 private:
  const double level_;
  double sum_ = 0.0;
  std::int64_t place_ = 0;
  bool found_ = false;
};

// Room for the sums of one row's groups, of one thread, in floats.
inline std::int64_t whole_scratch(std::int64_t vocab) {
  return (vocab + kGroupLogits - 1) / kGroupLogits * 2;
}

// exp((logit - origin) / temperature), or, to be greedy, whether the logit is the largest.
inline void weigh(const Vec (&logits)[kGroup], float origin, float inverse, bool greedy,
                  Vec (&z)[kGroup], Vec (&weight)[kGroup]) {
  for (int j = 0; j < kGroup; ++j) {
    z[j] = (logits[j] - broadcast(origin)) * broadcast(inverse);
    weight[j] = z[j];
  }
  exp(weight);
  if (!greedy) return;
  for (int j = 0; j < kGroup; ++j) weight[j] = z[j] == Vec{} ? broadcast(1.0f) : Vec{};
}

template <class T>
Drawn draw_from_row(const T* row, std::int64_t vocab, float temperature, const double* uniform,
                    double* group_sums) {
  Vec highest = broadcast(-INFINITY);
  for_each_group<false>(row, vocab, 0.0f, [&](std::int64_t, const Vec(&logits)[kGroup]) {
    for (const Vec& x : logits) highest = max(x, highest);  // may pass over NaN; the sum will not
  });
  const float origin = horizontal_max(highest), inverse = 1.0f / temperature;
  const bool greedy = uniform == nullptr;
  double sum = 0.0, weighted = 0.0;
  Vec z[kGroup], e[kGroup];
  for_each_group<false>(row, vocab, 0.0f, [&](std::int64_t first, const Vec(&logits)[kGroup]) {
    weigh(logits, origin, inverse, false, z, e);
    Vec weights{};
    for (int j = 0; j < kGroup; ++j)
      weights = fma(e[j], max(broadcast(kNegligible), z[j]), weights);
    const double of_group = horizontal_sum((e[0] + e[1]) + (e[2] + e[3]));
    group_sums[first / kGroupLogits] = of_group;
    sum += of_group;
    weighted += horizontal_sum(weights);
  });
  if (!(sum > 0.0)) return kNoDistribution;  // NaN as well
  // Greedy: the first of the largest.
  // A number that was rounded up to 1 still means the last token that is possible.
  const double most = std::nextafter(sum, 0.0);
  const double level = greedy ? 0.0 : *uniform * sum;
  Crossing crossing(level < most ? level : most);
  for_each_group<false>(row, vocab, 0.0f, [&](std::int64_t first, const Vec(&logits)[kGroup]) {
    if (crossing.found() || (!greedy && crossing.pass(group_sums[first / kGroupLogits]))) return;
    weigh(logits, origin, inverse, greedy, z, e);
    for (std::int64_t i = 0; i < kGroupLogits; ++i) {
      crossing.add(e[i / kWidth][i % kWidth], first + i);
    }
  });
  const std::int64_t token = crossing.place();
  const double logprob = (to_float(row[token]) - origin) * inverse - std::log(sum);
  return {token, static_cast<float>(logprob < 0.0 ? logprob : 0.0),
          static_cast<float>(std::log(sum) - weighted / sum)};
}

}  // namespace SUDER_ISA
}  // namespace suder
