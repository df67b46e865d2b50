// The one rule by which partial log-sum-exps are put together, on the host and on a device.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define SUDER_HOST_DEVICE __host__ __device__
#else
#define SUDER_HOST_DEVICE
#endif

#ifndef SUDER_ISA
#define SUDER_ISA host
#endif

namespace suder {
inline namespace SUDER_ISA {

// A set of logits z, seen through its maximum so that nothing overflows.
struct OnlineLse {
  float max = -INFINITY;  // max z
  float sum = 0.0f;       // sum exp(z - max)
  float weighted = 0.0f;  // sum exp(z - max) * (z - max), for the entropy
};

SUDER_HOST_DEVICE inline OnlineLse merge(const OnlineLse& a, const OnlineLse& b) {
  const OnlineLse& high = b.max > a.max ? b : a;
  const OnlineLse& low = b.max > a.max ? a : b;
  // Nothing but -inf (or nothing at all): no finite difference of maxima to shift by, and a sum of
  // 0 that changes nothing, or NaN that must not be lost.
  if (low.max == -INFINITY) return {high.max, high.sum + low.sum, high.weighted};
  const float shift = low.max - high.max;
  const float scale = std::exp(shift);
  return {high.max, high.sum + low.sum * scale,
          high.weighted + (low.weighted + low.sum * shift) * scale};
}

SUDER_HOST_DEVICE inline float lse(const OnlineLse& a) { return a.max + std::log(a.sum); }

SUDER_HOST_DEVICE inline float entropy(const OnlineLse& a) {
  return std::log(a.sum) - a.weighted / a.sum;
}

// log p of a member of the set. Subtracting the maximum first keeps the digits when all logits are
// large; rounding may leave a sum just under 1, never a probability above 1.
SUDER_HOST_DEVICE inline float log_probability(float z, const OnlineLse& a) {
  const float value = (z - a.max) - std::log(a.sum);
  return value > 0.0f ? 0.0f : value;
}

}  // namespace SUDER_ISA
}  // namespace suder
