// The log-sum-exp of a row read in pieces: one state, one rule for joining two states. Host and
// device compile the same lines, so every backend treats -inf, inf and NaN alike.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define SUDER_HOST_DEVICE __host__ __device__
#else
#define SUDER_HOST_DEVICE
#endif

namespace suder {

// Of the values seen so far: their maximum, sum of exp(z - max), sum of (z - max) exp(z - max).
// `max` is never NaN: a NaN value makes the sums NaN instead.
struct OnlineLse {
  float max = -INFINITY;
  float sum = 0.0f;
  float weighted = 0.0f;
};

// The same values told relative to a larger (or equal) maximum.
SUDER_HOST_DEVICE inline OnlineLse relative_to(const OnlineLse& s, float max) {
  if (s.max == max) return s;
  if (s.max == -INFINITY) return {max, s.sum, s.weighted};  // nothing yet: -inf - max has no use
  const float difference = s.max - max, scale = expf(difference);
  return {max, s.sum * scale, (s.weighted + difference * s.sum) * scale};
}

SUDER_HOST_DEVICE inline OnlineLse merge(const OnlineLse& a, const OnlineLse& b) {
  const float max = a.max > b.max ? a.max : b.max;
  const OnlineLse x = relative_to(a, max), y = relative_to(b, max);
  return {max, x.sum + y.sum, x.weighted + y.weighted};
}

// Adds a value that is not above s.max. Minus infinity adds nothing, also where max is -inf.
SUDER_HOST_DEVICE inline void add(OnlineLse& s, float z) {
  if (z == -INFINITY) return;
  const float difference = z - s.max, e = expf(difference);
  s.sum += e;
  s.weighted += e == 0.0f ? 0.0f : difference * e;  // 0 * -inf is not 0
}

SUDER_HOST_DEVICE inline float lse(const OnlineLse& s) { return s.max + logf(s.sum); }

// Entropy of the softmax over the values, in nats.
SUDER_HOST_DEVICE inline float entropy(const OnlineLse& s) {
  return logf(s.sum) - s.weighted / s.sum;
}

// log p of value z. Not z - lse: with a large common offset that difference has no digits left.
// Rounding must not make a probability larger than 1.
SUDER_HOST_DEVICE inline float log_probability(const OnlineLse& s, float z) {
  const float value = (z - s.max) - logf(s.sum);
  return value > 0.0f ? 0.0f : value;
}

}  // namespace suder
