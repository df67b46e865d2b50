// The one rule by which parts of a divergence over the vocabulary are put together.
#pragma once

#include <cmath>

#include "common/online_lse.h"

namespace suder {
inline namespace SUDER_ISA {

// Two sets of logits z and y of the same entries, each seen through its maximum: a = z - max z,
// b = y - max y, both times the inverse temperature. Distances count as no more than kFarthest, so
// that what is multiplied by a probability of 0 is finite.
struct OnlineKl {
  float max = -INFINITY, ref_max = -INFINITY;  // max z, max y
  float sum = 0.0f, ref_sum = 0.0f;            // sum exp(a), sum exp(b)
  float weighted = 0.0f;                       // sum exp(a) (a - b)
  float impossible = 0.0f;                     // infinite if any y alone is -inf
};

inline constexpr float kFarthest = -1e30f;

// Not further than that; of what is no number (two infinite logits), too: the sum there is 0, or a
// NaN that must not be lost.
SUDER_HOST_DEVICE inline float bounded(float distance) {
  return distance > kFarthest ? distance : kFarthest;
}

// The same values told relative to larger (or equal) maxima.
SUDER_HOST_DEVICE inline OnlineKl relative_to(const OnlineKl& s, float max, float ref_max,
                                              float inverse_temperature = 1.0f) {
  const float shift = bounded((s.max - max) * inverse_temperature);
  const float ref_shift = bounded((s.ref_max - ref_max) * inverse_temperature);
  const float scale = std::exp(shift);
  return {max,
          ref_max,
          s.sum * scale,
          s.ref_sum * std::exp(ref_shift),
          (s.weighted + s.sum * (shift - ref_shift)) * scale,
          s.impossible};
}

SUDER_HOST_DEVICE inline OnlineKl merge(const OnlineKl& a, const OnlineKl& b,
                                        float inverse_temperature = 1.0f) {
  const float max = a.max > b.max ? a.max : b.max;
  const float ref_max = a.ref_max > b.ref_max ? a.ref_max : b.ref_max;
  const OnlineKl one = relative_to(a, max, ref_max, inverse_temperature);
  const OnlineKl other = relative_to(b, max, ref_max, inverse_temperature);
  return {max,
          ref_max,
          one.sum + other.sum,
          one.ref_sum + other.ref_sum,
          one.weighted + other.weighted,
          one.impossible + other.impossible};
}

// Rounding may leave it just under 0.
SUDER_HOST_DEVICE inline float divergence(const OnlineKl& s) {
  const float mean = s.weighted / s.sum;
  if (s.impossible > 0.0f) return mean + s.ref_sum == mean + s.ref_sum ? s.impossible : NAN;
  const float value = mean + std::log(s.ref_sum / s.sum);
  return value < 0.0f ? 0.0f : value;
}

}  // namespace SUDER_ISA
}  // namespace suder
