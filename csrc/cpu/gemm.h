// C += A * B on packed panels: the one matrix product of the CPU kernels.
//
// Operands consist of 32-bit units along k: a float, or (AVX-512 BF16) a pair of bfloat16 that one
// instruction multiplies and adds up. Packing (cpu/pack.h) widens what is neither.
//   A panel: kRows rows,      [ceil(k / kWidth)][kRows][kWidth units]   read one unit at a time
//   B panel: kColumns columns, [k][kColumns]                            read as vectors
// An element of C is one chain of multiply-adds in the order of k, whatever the size of the tile
// it is computed in: a row or column gets the same bits wherever it lies.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/vec.h"

namespace suder {
inline namespace SUDER_ISA {

// Accumulators fill the vector registers but for two of B and one or two of A.
#if defined(__AVX512F__)
inline constexpr int kRows = 14;
#else
inline constexpr int kRows = 6;
#endif
inline constexpr int kVectors = 2;
inline constexpr int kColumns = kVectors * kWidth;

// Products are summed in blocks of this many units, which then add up in C: shorter chains, and
// panels that fit the caches.
inline constexpr std::int64_t kBlock = 512;

struct FloatUnits {
  static constexpr int kElements = 1;
  static Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
};
#if defined(__AVX512BF16__)
struct PairUnits {
  static constexpr int kElements = 2;
  static Vec multiply_add(Vec a, Vec b, Vec c) {
    return (Vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
  }
};
template <class T>
using UnitsOf = std::conditional_t<std::is_same_v<T, BFloat16>, PairUnits, FloatUnits>;
#else
template <class T>
using UnitsOf = FloatUnits;
#endif

inline constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return ceil_div(a, b) * b;
}
inline constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline constexpr std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// How many units hold `elements` along k, and how many floats' room a panel of them takes.
template <class Units>
constexpr std::int64_t units(std::int64_t elements) {
  return ceil_div(elements, Units::kElements);
}
inline constexpr std::int64_t a_panel_size(std::int64_t k) { return round_up(k, kWidth) * kRows; }
inline constexpr std::int64_t b_panel_size(std::int64_t k) { return k * kColumns; }

template <class Units, int kR, int kV>
[[gnu::always_inline]] inline void multiply_unit(const float* a, const float* b,
                                                 Vec (&sum)[kR][kV]) {
  Vec column[kV];
#pragma GCC unroll 2
  for (int j = 0; j < kV; ++j) column[j] = load(b + j * kWidth);
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) {
    const Vec row = broadcast(a[i * kWidth]);
#pragma GCC unroll 2
    for (int j = 0; j < kV; ++j) sum[i][j] = Units::multiply_add(row, column[j], sum[i][j]);
  }
}

// The micro-kernel: kR rows by kV vectors of C stay in registers for k units.
template <class Units, int kR, int kV>
[[gnu::noinline]] void multiply_tile(const float* a, const float* b, std::int64_t k, float* c,
                                     std::int64_t c_stride, bool accumulate) {
  Vec sum[kR][kV] = {};
  for (; k >= kWidth; k -= kWidth) {
#pragma GCC unroll 4
    for (int step = 0; step < kWidth; ++step) {
      multiply_unit<Units>(a + step, b + step * kColumns, sum);
    }
    a += kRows * kWidth;
    b += kWidth * kColumns;
  }
  for (; k > 0; --k, ++a, b += kColumns) multiply_unit<Units>(a, b, sum);
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kV; ++j) {
      float* target = c + i * c_stride + j * kWidth;
      store(target, accumulate ? load(target) + sum[i][j] : sum[i][j]);
    }
  }
}

using TileFunction = void (*)(const float*, const float*, std::int64_t, float*, std::int64_t, bool);

// The micro-kernel for a tile of `rows` by one or two vectors; the rows it computes in excess
// (at most one) are counted in `computed`.
template <class Units, int kV, int kR = kRows>
TileFunction tile_function(int rows, int* computed) {
  if constexpr (kR > 2) {
    if (rows <= kR - 2) return tile_function<Units, kV, kR - 2>(rows, computed);
  } else if (rows == 1) {
    *computed = 1;
    return &multiply_tile<Units, 1, kV>;
  }
  *computed = kR;
  return &multiply_tile<Units, kR, kV>;
}

// C[rows, columns] = A B, or += if `accumulate`; one panel of each, any part of their width.
template <class Units>
void multiply_panels(const float* a, const float* b, std::int64_t k, int rows, int columns,
                     float* c, std::int64_t c_stride, bool accumulate) {
  const bool narrow = columns <= kWidth;
  int computed;
  const TileFunction tile = narrow ? tile_function<Units, 1>(rows, &computed)
                                   : tile_function<Units, kVectors>(rows, &computed);
  if (computed == rows && columns == (narrow ? kWidth : kColumns)) {
    return tile(a, b, k, c, c_stride, accumulate);
  }
  alignas(64) float edge[kRows * kColumns];
  tile(a, b, k, edge, kColumns, false);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      float& target = c[i * c_stride + j];
      target = accumulate ? target + edge[i * kColumns + j] : edge[i * kColumns + j];
    }
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
