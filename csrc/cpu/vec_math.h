// exp and tanh on vectors.
#pragma once

#include "cpu/vec.h"

namespace suder {
inline namespace SUDER_ISA {

// exp for arguments up to 88: within 2 ulp of the true value, exp(0) == 1, NaN stays NaN, and what
// is below -86.5 (where the result is about to lose bits) is 0. Larger arguments give exp(88).
//
// x = n ln2 + r with |r| <= ln2/2; exp(r) = 1 + r + r^2 q(r), the degree-4 polynomial q chosen for
// the least relative error of the whole (3.1e-9) on that interval.
//
// Several vectors at a time, step by step: one chain of these operations leaves the multipliers
// waiting, and the processor does not look far enough ahead to find the next.
template <int kCount>
inline void exp(Vec (&x)[kCount]) {
  const Vec low = broadcast(-86.5f);
  const Vec round = broadcast(0x1.8p23f + 127.0f);  // leaves n + 127 in the low bits of the sum
  constexpr float kCoefficients[] = {0x1.123a20p-7f, 0x1.5558f2p-5f, 0x1.555492p-3f,
                                     0x1.fffffcp-2f};
  Vec shifted[kCount], r[kCount], q[kCount];
  for (int i = 0; i < kCount; ++i) {
    const Vec y = max(low, min(broadcast(88.0f), x[i]));
    shifted[i] = fma(y, broadcast(0x1.715476p0f), round);
    const Vec n = shifted[i] - round;
    r[i] = fma(n, broadcast(-0x1.62e4p-1f), y);  // exact: the constant has 14 bits, n has 8
    r[i] = fma(n, broadcast(-0x1.7f7d1cp-20f), r[i]);
    q[i] = broadcast(0x1.6a23d0p-10f);
  }
  for (float coefficient : kCoefficients) {
    for (int i = 0; i < kCount; ++i) q[i] = fma(q[i], r[i], broadcast(coefficient));
  }
  for (int i = 0; i < kCount; ++i) {
    const Vec p = fma(q[i] * r[i], r[i], r[i]) + 1.0f;
    const Vec power = (Vec)((BitsVec)shifted[i] << 23);
    x[i] = x[i] < low ? Vec{} : p * power;
  }
}
inline Vec exp(Vec x) {
  Vec one[] = {x};
  exp(one);
  return one[0];
}

// tanh within 4 ulp.
inline Vec tanh(Vec x) {
  const Vec magnitude = max(-x, x);
  const Vec square = x * x;
  Vec p = broadcast(-5.70498872745e-3f);  // an odd polynomial for |x| < 0.625
  p = fma(p, square, broadcast(2.06390887954e-2f));
  p = fma(p, square, broadcast(-5.37397155531e-2f));
  p = fma(p, square, broadcast(1.33314422036e-1f));
  p = fma(p, square, broadcast(-3.33332819422e-1f));
  const Vec small = fma(p * square, x, x);
  const Vec large = 1.0f - 2.0f / (exp(2.0f * magnitude) + 1.0f);
  const Vec signed_large = x < 0.0f ? -large : large;
  return magnitude < 0.625f ? small : signed_large;
}

}  // namespace SUDER_ISA
}  // namespace suder
