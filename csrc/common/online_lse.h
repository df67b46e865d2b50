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

// A set of logits z, seen through its maximum so that nothing overflows. A temperature scales the
// differences d = (z - max) * inverse_temperature: they are exact where logits are large and close,
// and z * inverse_temperature is not. All functions must get the temperature of the sums.
struct OnlineLse {
  float max = -INFINITY;  // max z
  float sum = 0.0f;       // sum exp(d)
  float weighted = 0.0f;  // sum exp(d) * d, for the entropy
};

// Fields are chosen one by one: a reference to the larger state would put both in a GPU thread's
// local memory.
SUDER_HOST_DEVICE inline OnlineLse merge(const OnlineLse& a, const OnlineLse& b,
                                         float inverse_temperature = 1.0f) {
  const bool swap = b.max > a.max;
  const float high = swap ? b.max : a.max, low = swap ? a.max : b.max;
  const float high_sum = swap ? b.sum : a.sum, low_sum = swap ? a.sum : b.sum;
  const float high_weighted = swap ? b.weighted : a.weighted;
  // Nothing but -inf (or nothing at all): no finite difference of maxima to shift by, and a sum of
  // 0 that changes nothing, or NaN that must not be lost.
  if (low == -INFINITY) return {high, high_sum + low_sum, high_weighted};
  const float low_weighted = swap ? a.weighted : b.weighted;
  const float shift = (low - high) * inverse_temperature;
  const float scale = std::exp(shift);
  return {high, high_sum + low_sum * scale,
          high_weighted + (low_weighted + low_sum * shift) * scale};
}

SUDER_HOST_DEVICE inline float lse(const OnlineLse& a, float inverse_temperature = 1.0f) {
  return a.max * inverse_temperature + std::log(a.sum);
}

SUDER_HOST_DEVICE inline float entropy(const OnlineLse& a) {
  return std::log(a.sum) - a.weighted / a.sum;
}

// log p of a member of the set. Subtracting the maximum first keeps the digits when all logits are
// large; rounding may leave a sum just under 1, never a probability above 1.
SUDER_HOST_DEVICE inline float log_probability(float z, const OnlineLse& a,
                                               float inverse_temperature = 1.0f) {
  const float value = (z - a.max) * inverse_temperature - std::log(a.sum);
  return value > 0.0f ? 0.0f : value;
}

}  // namespace SUDER_ISA
}  // namespace suder
