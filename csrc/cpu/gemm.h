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

// Memory that will be packed next: while a tile is computed, each of `rows` rows, `stride` bytes
// apart, is fetched into the cache from `data` on, as far as the product runs along k.
struct Ahead {
  const char* data = nullptr;
  std::int64_t stride = 0;
  int rows = 0;
};

// C[rows, columns] = A B over k units, or += if `accumulate`: one panel of each operand, and as
// much of their width as C has. Defined in gemm_cpu.cc for the Units above.
template <class Units>
void multiply_panels(const float* a, const float* b, std::int64_t k, int rows, int columns,
                     float* c, std::int64_t c_stride, bool accumulate, Ahead ahead = {});

}  // namespace SUDER_ISA
}  // namespace suder
