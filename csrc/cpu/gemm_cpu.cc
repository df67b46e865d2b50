// The micro-kernel: one source, compiled for every instruction set.
#include "cpu/gemm.h"

namespace suder::SUDER_ISA {
namespace {

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
                                     std::int64_t c_stride, bool accumulate, Ahead ahead) {
  for (int i = 0; i < kR; ++i) __builtin_prefetch(c + i * c_stride, 1);
  Vec sum[kR][kV] = {};
  for (; k >= kWidth; k -= kWidth) {
    for (int i = 0; i < ahead.rows; ++i) __builtin_prefetch(ahead.data + i * ahead.stride);
    ahead.data += kWidth * sizeof(float);
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

using TileFunction = void (*)(const float*, const float*, std::int64_t, float*, std::int64_t, bool,
                              Ahead);

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

}  // namespace

template <class Units>
void multiply_panels(const float* a, const float* b, std::int64_t k, int rows, int columns,
                     float* c, std::int64_t c_stride, bool accumulate, Ahead ahead) {
  const bool narrow = columns <= kWidth;
  int computed;
  const TileFunction tile = narrow ? tile_function<Units, 1>(rows, &computed)
                                   : tile_function<Units, kVectors>(rows, &computed);
  if (computed == rows && columns == (narrow ? kWidth : kColumns)) {
    return tile(a, b, k, c, c_stride, accumulate, ahead);
  }
  alignas(64) float edge[kRows * kColumns];
  tile(a, b, k, edge, kColumns, false, ahead);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      float& target = c[i * c_stride + j];
      target = accumulate ? target + edge[i * kColumns + j] : edge[i * kColumns + j];
    }
  }
}

template void multiply_panels<FloatUnits>(const float*, const float*, std::int64_t, int, int,
                                          float*, std::int64_t, bool, Ahead);
#if defined(__AVX512BF16__)
template void multiply_panels<PairUnits>(const float*, const float*, std::int64_t, int, int, float*,
                                         std::int64_t, bool, Ahead);
#endif

}  // namespace suder::SUDER_ISA
