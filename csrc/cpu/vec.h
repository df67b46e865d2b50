// Vectors of the instruction set this file is compiled for: 16, 8 or 4 lanes of 32 bits.
//
// They are the compiler's vector types, so + - * / < are operators; what has no operator is here.
// The name of the instruction set is the namespace: see common/dtype.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "common/dtype.h"

#if defined(__AVX2__)
// GCC 12 takes its own "undefined" operand of some AVX-512 intrinsics for a mistake.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace suder {
inline namespace SUDER_ISA {

#if defined(__AVX512F__)
inline constexpr int kWidth = 16;
#elif defined(__AVX2__)
inline constexpr int kWidth = 8;
#else
inline constexpr int kWidth = 4;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(kWidth * 4)));
typedef std::uint32_t BitsVec __attribute__((vector_size(kWidth * 4)));
typedef std::uint16_t HalfVec __attribute__((vector_size(kWidth * 2)));

template <class V>
inline V load_as(const void* source) {
  V v;
  std::memcpy(&v, source, sizeof(V));
  return v;
}
inline Vec load(const float* source) { return load_as<Vec>(source); }
inline void store(float* target, Vec v) { std::memcpy(target, &v, sizeof(v)); }

inline Vec broadcast(float x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (Vec)_mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}

// a * b + c, rounded once where the hardware can.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// a > b ? a : b and a < b ? a : b; so b, if either is NaN.
inline Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}
inline Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

// Whether a > b in any lane.
inline bool any_greater(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)(a > b)) != 0;
#else
  const IntVec greater = a > b;
  return (greater[0] | greater[1] | greater[2] | greater[3]) != 0;
#endif
}

// All lanes put together by `combine` in a fixed order: halves folded upon each other.
template <int kHalf, std::size_t... kLane>
inline Vec rotated(Vec v, std::index_sequence<kLane...>) {
  return __builtin_shufflevector(v, v, ((kLane + kHalf) % kWidth)...);
}
template <class F>
inline float fold_lanes(Vec v, F&& combine) {
  constexpr auto lanes = std::make_index_sequence<kWidth>();
  if constexpr (kWidth > 8) v = combine(v, rotated<8>(v, lanes));
  if constexpr (kWidth > 4) v = combine(v, rotated<4>(v, lanes));
  v = combine(v, rotated<2>(v, lanes));
  return combine(v, rotated<1>(v, lanes))[0];
}
inline float horizontal_sum(Vec v) {
  return fold_lanes(v, [](Vec a, Vec b) { return a + b; });
}
inline float horizontal_max(Vec v) {  // of lanes none of which is NaN
  return fold_lanes(v, [](Vec a, Vec b) { return max(a, b); });
}

// 16 bits to 32 and back (GCC makes two halves of these by itself).
inline BitsVec widen(HalfVec v) {
#if defined(__AVX512F__)
  return (BitsVec)_mm512_cvtepu16_epi32((__m256i)v);
#else
  return __builtin_convertvector(v, BitsVec);
#endif
}
inline HalfVec narrow(BitsVec v) {
#if defined(__AVX512F__)
  return (HalfVec)_mm512_cvtepi32_epi16((__m512i)v);
#else
  return __builtin_convertvector(v, HalfVec);
#endif
}

// kWidth elements of any type, as float.
inline Vec load_floats(const float* source) { return load(source); }
inline Vec load_floats(const BFloat16* source) {
  return (Vec)(widen(load_as<HalfVec>(source)) << 16);
}
inline Vec load_floats(const Float16* source) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#else
  return Vec{to_float(source[0]), to_float(source[1]), to_float(source[2]), to_float(source[3])};
#endif
}

inline void store_floats(float* target, Vec v) { store(target, v); }
inline void store_floats(BFloat16* target, Vec v) {
#if defined(__AVX512BF16__)
  constexpr int kDenormal = 0x20;  // the instruction below would take them for 0
  if (_mm512_fpclass_ps_mask((__m512)v, kDenormal) == 0) [[likely]] {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(target, &half, sizeof(half));
    return;
  }
#endif
  const BitsVec bits = (BitsVec)v;
  const BitsVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BitsVec quiet = (bits >> 16) | 0x40u;
  const HalfVec half = narrow(v == v ? rounded : quiet);
  std::memcpy(target, &half, sizeof(half));
}
inline void store_floats(Float16* target, Vec v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target),
                   _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kWidth; ++i) target[i] = from_float<Float16>(v[i]);
#endif
}

// Rows of an array of `rows` vectors become its columns. Stage s exchanges blocks of s x s lanes.
template <int kStep, std::size_t... kLane>
inline void transpose_stage(Vec (&rows)[kWidth], std::index_sequence<kLane...>) {
  for (int i = 0; i < kWidth; ++i) {
    if (i & kStep) continue;
    const Vec a = rows[i], b = rows[i + kStep];
    rows[i] = __builtin_shufflevector(a, b, (kLane & kStep ? kWidth + kLane - kStep : kLane)...);
    rows[i + kStep] =
        __builtin_shufflevector(a, b, (kLane & kStep ? kWidth + kLane : kLane + kStep)...);
  }
}
inline void transpose(Vec (&rows)[kWidth]) {
  constexpr auto lanes = std::make_index_sequence<kWidth>();
  transpose_stage<1>(rows, lanes);
  transpose_stage<2>(rows, lanes);
  if constexpr (kWidth > 4) transpose_stage<4>(rows, lanes);
  if constexpr (kWidth > 8) transpose_stage<8>(rows, lanes);
}

}  // namespace SUDER_ISA
}  // namespace suder
