// A token of what top_k and top_p leave of a row.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/dtype.h"
#include "cpu/vec.h"
#include "ops/sample_token/whole_row.h"

namespace suder {
inline namespace SUDER_ISA {

struct Candidate {
  float logit;
  std::int32_t token;
};

// Room for one row's candidates, of one thread, in floats.
inline std::int64_t cut_scratch(std::int64_t vocab) { return 2 * vocab; }

// The order of top_p: largest first, of equals the first token. Types of this namespace, so that
// what the standard library makes of them is this instruction set's own.
struct Later {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.logit < b.logit || (a.logit == b.logit && a.token > b.token);
  }
};
struct Earlier {
  bool operator()(const Candidate& a, const Candidate& b) const { return Later()(b, a); }
};
struct ByToken {
  bool operator()(const Candidate& a, const Candidate& b) const { return a.token < b.token; }
};

// The tokens whose logits are at least this, impossible ones left out; returns the end.
template <class T>
Candidate* collect(const T* row, std::int64_t vocab, float least, Candidate* end) {
  for (std::int64_t v = 0; v < vocab; ++v) {
    const float logit = to_float(row[v]);
    if (logit >= least && logit > -INFINITY) *end++ = {logit, static_cast<std::int32_t>(v)};
  }
  return end;
}

template <class T>
Drawn draw_from_cut_row(const T* row, std::int64_t vocab, float temperature, const Draw& p,
                        const double* uniform, float* scratch) {
  float highest = -INFINITY;
  for (std::int64_t v = 0; v < vocab; ++v) {
    const float logit = to_float(row[v]);
    if (!(logit < INFINITY)) return kNoDistribution;  // NaN as well, before anything is ordered
    highest = logit > highest ? logit : highest;
  }
  if (highest == -INFINITY) return kNoDistribution;
  Candidate* begin = reinterpret_cast<Candidate*>(scratch);
  Candidate* end = collect(row, vocab, -INFINITY, begin);
  if (p.top_k > 0 && p.top_k < end - begin) {
    std::nth_element(begin, begin + p.top_k - 1, end, Earlier());
    end = collect(row, vocab, begin[p.top_k - 1].logit, begin);  // ties with it, too
  }
  const auto scaled = [&](const Candidate& c) {
    return static_cast<double>(c.logit - highest) / temperature;
  };
  if (p.top_p < 1.0) {
    double total = 0.0, held = 0.0;
    for (const Candidate* c = begin; c < end; ++c) total += std::exp(scaled(*c));
    std::make_heap(begin, end, Later());
    Candidate* rest = end;
    while (rest > begin && held < p.top_p * total) {
      std::pop_heap(begin, rest--, Later());
      held += std::exp(scaled(*rest));
    }
    begin = rest;
    std::sort(begin, end, ByToken());
  }
  double sum = 0.0, weighted = 0.0;
  for (const Candidate* c = begin; c < end; ++c) {
    const double z = scaled(*c), weight = std::exp(z);
    sum += weight;
    weighted += weight * z;
  }
  Crossing crossing(uniform == nullptr ? 0.0 : *uniform * sum);
  for (const Candidate* c = begin; c < end; ++c) {
    const double z = scaled(*c);
    crossing.add(uniform == nullptr ? (z == 0.0) : std::exp(z), c - begin);
  }
  const Candidate& chosen = begin[crossing.place()];
  const double logprob = scaled(chosen) - std::log(sum);
  return {chosen.token, static_cast<float>(logprob < 0.0 ? logprob : 0.0),
          static_cast<float>(std::log(sum) - weighted / sum)};
}

}  // namespace SUDER_ISA
}  // namespace suder
