// What the two products of the backward pass share: packing of the right operand, the product
// itself, and the rounding of its sums.
#pragma once

#include <type_traits>

#include "cpu/pack.h"
#include "cpu/parallel.h"
#include "ops/linear_logprob/logits_tile.h"

namespace suder {
inline namespace SUDER_ISA {

inline constexpr std::int64_t kGroup = kTilePanels;  // panels of features in one task
inline constexpr std::int64_t kPackUnits = 32;       // and units of k packed in one task

// Whether gradients are the float32 sums themselves, of which none has to be rounded.
template <class T>
bool float32_gradients(const LinearLogprobBackward& p) {
  return std::is_same_v<T, float> || p.float32_gradients;
}

// The B panels [panel][k][kColumns] of rows [first, first + rows), but for those with skip[row]. A
// group of panels at a time, so that few places are written at once; what the rows hold for the
// next group is fetched meanwhile.
template <class T>
void pack_rows(int threads, const ConstMatrix& matrix, std::int64_t first, std::int64_t rows,
               const std::uint8_t* skip, float* panels) {
  using Units = UnitsOf<T>;
  const std::int64_t depth = units<Units>(rows), end_panel = ceil_div(matrix.cols, kColumns);
  cpu::parallel_for(threads, ceil_div(depth, kPackUnits), [&](std::int64_t task, int) {
    const std::int64_t end = smaller(depth, (task + 1) * kPackUnits);
    for (std::int64_t group = 0; group < end_panel; group += kGroup) {
      for (std::int64_t unit = task * kPackUnits; unit < end; ++unit) {
        const std::int64_t row = unit * Units::kElements;
        const T* source = row_of<T>(matrix, first + row);
        for (std::int64_t panel = group; panel < smaller(group + kGroup, end_panel); ++panel) {
          const T* here = source + panel * kColumns;
          for (int i = 0; i < Units::kElements; ++i) {
            const char* ahead =
                reinterpret_cast<const char*>(here + i * matrix.stride + kGroup * kColumns);
            for (std::size_t line = 0; line < kColumns * sizeof(T); line += 64)
              __builtin_prefetch(ahead + line);
          }
          pack_b(here, matrix.stride, matrix.cols - panel * kColumns,
                 smaller(Units::kElements, rows - row), skip == nullptr ? nullptr : skip + row,
                 panels + panel * b_panel_size(depth) + unit * kColumns);
        }
      }
    }
  });
}

// Packed operands of C [rows, features] = A B over `depth` units.
template <class T>
struct GradientProduct {
  const float* a;
  const float* b;
  std::int64_t rows, depth, features;

  // C (+)= A B for kTileRows rows from first_row on and the features of a group; `c` begins there.
  void multiply(std::int64_t first_row, std::int64_t group, float* c, std::int64_t c_stride,
                bool accumulate) const {
    const std::int64_t end = smaller(first_row + kTileRows, rows);
    const std::int64_t end_panel = smaller((group + 1) * kGroup, ceil_div(features, kColumns));
    for (std::int64_t k = 0; k < depth; k += kBlock) {
      for (std::int64_t i = first_row; i < end; i += kRows) {
        const float* a_panel = a + i / kRows * a_panel_size(depth) + k * kRows;
        float* c_row = c + (i - first_row) * c_stride;
        for (std::int64_t panel = group * kGroup; panel < end_panel; ++panel, c_row += kColumns) {
          multiply_panels<UnitsOf<T>>(
              a_panel, b + panel * b_panel_size(depth) + k * kColumns, smaller(kBlock, depth - k),
              static_cast<int>(smaller(kRows, end - i)),
              static_cast<int>(smaller(kColumns, features - panel * kColumns)), c_row, c_stride,
              accumulate || k > 0);
        }
      }
    }
  }
};

// Finished sums, rounded to the type of the result.
template <class T>
void store_rounded(const float* sums, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                   T* target, std::int64_t target_stride) {
  for (; rows > 0; --rows, sums += stride, target += target_stride) {
    std::int64_t d = 0;
    for (; d + kWidth <= columns; d += kWidth) store_floats(target + d, load(sums + d));
    for (; d < columns; ++d) target[d] = from_float<T>(sums[d]);
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
