// exp and tanh on vectors.
#pragma once

#include "cpu/vec.h"

namespace suder {
inline namespace SUDER_ISA {

// Below this exp() is 0.
#if defined(__AVX512F__)
inline constexpr float kExpZero = -104.0f;  // about where float32 itself ends
#else
inline constexpr float kExpZero = -86.5f;  // where the result is about to lose bits
#endif

// p * 2^n, where n + 127 also lies in the low bits of `biased`; 0 if x is below kExpZero.
inline Vec scaled(Vec p, [[maybe_unused]] Vec n, [[maybe_unused]] Vec biased,
                  [[maybe_unused]] Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return x < broadcast(kExpZero) ? Vec{} : p * (Vec)((BitsVec)biased << 23);
#endif
}

// exp for arguments up to 88: within 2 ulp of the true value where that is a normal number (2.5
// without fused multiply-adds), exp(0) == 1, NaN stays NaN.
//
// x = n ln2 + r with |r| <= ln2/2; exp(r) = 1 + r q(r), the degree-4 polynomial q chosen for the
// least relative error of the whole (9.2e-8) on that interval.
//
// Several vectors at a time, step by step: one chain of these operations leaves the multipliers
// waiting, and the processor does not look far enough ahead to find the next.
template <int kCount>
inline void exp(Vec (&x)[kCount]) {
  const Vec round = broadcast(0x1.8p23f + 127.0f);  // leaves n + 127 in the low bits of the sum
  constexpr float kCoefficients[] = {0x1.573ad0p-5f, 0x1.555a6ep-3f, 0x1.fffdc4p-2f, 0x1.fffff6p-1f,
                                     1.0f};
  Vec biased[kCount], n[kCount], r[kCount], p[kCount];
  for (int i = 0; i < kCount; ++i) {
    const Vec y = max(broadcast(kExpZero), x[i]);
    biased[i] = fma(y, broadcast(0x1.715476p0f), round);
    n[i] = biased[i] - round;
    r[i] = fma(n[i], broadcast(-0x1.62e4p-1f), y);  // exact: the constant has 14 bits, n has 8
    r[i] = fma(n[i], broadcast(-0x1.7f7d1cp-20f), r[i]);
    p[i] = broadcast(0x1.0fa7d8p-7f);
  }
  for (float coefficient : kCoefficients) {
    for (int i = 0; i < kCount; ++i) p[i] = fma(p[i], r[i], broadcast(coefficient));
  }
  for (int i = 0; i < kCount; ++i) x[i] = scaled(p[i], n[i], biased[i], x[i]);
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
  const Vec large = 1.0f - 2.0f / (exp(2.0f * min(broadcast(10.0f), magnitude)) + 1.0f);
  const Vec signed_large = x < 0.0f ? -large : large;
  return magnitude < 0.625f ? small : signed_large;
}

}  // namespace SUDER_ISA
}  // namespace suder
