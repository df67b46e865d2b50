// Stands in for CUDA's half type: storage and the conversions that kernels use, round to even.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half value) {
  const int sign = value.bits >> 15, exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return sign ? -magnitude : magnitude;
}

inline __half __float2half_rn(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (value != value) return {0x7FFF};
  if (magnitude == 0.0f) return {sign};
  if (magnitude >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7C00)};
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  // Normal numbers have 11 significant bits, those below 2^-14 end at 2^-24.
  const int last_bit = exponent - 11 < -24 ? -24 : exponent - 11;
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -last_bit)));
  if (last_bit == -24) return {static_cast<std::uint16_t>(sign | mantissa)};
  // A mantissa of 2048 carries into the exponent by itself.
  return {static_cast<std::uint16_t>(sign | (((last_bit + 24) << 10) + mantissa))};
}
