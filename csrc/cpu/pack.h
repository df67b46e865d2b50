// Packing of matrices into the panels of cpu/gemm.h.
//
// What lies outside the matrix is packed as zero, so a product may always run over whole panels.
#pragma once

#include <cstdint>

#include "cpu/gemm.h"
#include "cpu/vec.h"

namespace suder {
inline namespace SUDER_ISA {

// kWidth units from `count` (at most that many) contiguous elements: a unit is one element, or two.
template <class T>
Vec contiguous_units(const T* source, std::int64_t count) {
  constexpr int kElements = UnitsOf<T>::kElements;
  T partial[kWidth * kElements] = {};
  if (count < kWidth * kElements) {
    for (std::int64_t i = 0; i < count; ++i) partial[i] = source[i];
    source = partial;
  }
  if constexpr (kElements == 2) {
    return load_as<Vec>(source);
  } else {
    return load_floats(source);
  }
}

// kWidth units, one of each of `count` columns, whose elements lie in consecutive rows.
// `second` is the second row of a pair, null if there is none.
template <class T>
Vec columnwise_units(const T* first, [[maybe_unused]] const T* second, std::int64_t count) {
  T partial[2][kWidth] = {};
  if (count < kWidth) {
    for (std::int64_t i = 0; i < count; ++i) partial[0][i] = first[i];
    for (std::int64_t i = 0; second != nullptr && i < count; ++i) partial[1][i] = second[i];
    first = partial[0];
    if (second != nullptr) second = partial[1];
  }
  if constexpr (UnitsOf<T>::kElements == 2) {
    const BitsVec low = widen(load_as<HalfVec>(first));
    const HalfVec none = {};
    const BitsVec high = widen(second == nullptr ? none : load_as<HalfVec>(second));
    return (Vec)(low | (high << 16));
  } else {
    return load_floats(first);
  }
}

// One A panel: row i of it is row i of the source, k runs along the source's row.
template <class T>
void pack_a(const T* source, std::int64_t stride, std::int64_t rows, std::int64_t elements,
            float* panel) {
  constexpr int kStep = kWidth * UnitsOf<T>::kElements;
  for (std::int64_t k = 0; k < elements; k += kStep, panel += kRows * kWidth) {
    for (std::int64_t i = 0; i < rows; ++i) {
      store(panel + i * kWidth, contiguous_units(source + i * stride + k, elements - k));
    }
    for (std::int64_t i = rows; i < kRows; ++i) store(panel + i * kWidth, Vec{});
  }
}

// kWidth rows of kWidth units become columns: the transpose of a block of which `rows` by
// `elements` lie in the matrix.
template <class T>
void load_transposed(const T* source, std::int64_t stride, std::int64_t rows, std::int64_t elements,
                     Vec (&block)[kWidth]) {
  if (rows >= kWidth && elements >= kWidth * UnitsOf<T>::kElements) {
    for (int i = 0; i < kWidth; ++i) {
      block[i] = contiguous_units(source + i * stride, kWidth * UnitsOf<T>::kElements);
    }
  } else {
    for (int i = 0; i < kWidth; ++i) {
      block[i] = i < rows ? contiguous_units(source + i * stride, elements) : Vec{};
    }
  }
  transpose(block);
}

// One B panel of the transposed source: column j is row j of the source.
template <class T>
void pack_b_transposed(const T* source, std::int64_t stride, std::int64_t columns,
                       std::int64_t elements, float* panel) {
  constexpr int kElements = UnitsOf<T>::kElements;
  const std::int64_t k_units = units<UnitsOf<T>>(elements);
  for (std::int64_t k = 0; k < k_units; k += kWidth) {
    const std::int64_t depth = smaller(kWidth, k_units - k);
    for (int j = 0; j < kColumns; j += kWidth) {
      Vec block[kWidth];
      load_transposed(source + j * stride + k * kElements, stride, columns - j,
                      elements - k * kElements, block);
      float* target = panel + k * kColumns + j;
      if (depth == kWidth) {
        for (int i = 0; i < kWidth; ++i) store(target + i * kColumns, block[i]);
      } else {
        for (int i = 0; i < depth; ++i) store(target + i * kColumns, block[i]);
      }
    }
  }
}

// One B panel whose rows (k) are rows of the source. Rows with skip[row] != 0 count as zero: what
// is multiplied by zero must not turn NaN if it is infinite.
template <class T>
void pack_b(const T* source, std::int64_t stride, std::int64_t columns, std::int64_t elements,
            const std::uint8_t* skip, float* panel) {
  constexpr int kElements = UnitsOf<T>::kElements;
  const T zeros[kColumns] = {};
  auto row = [&](std::int64_t k) {
    return skip != nullptr && skip[k] != 0 ? zeros : source + k * stride;
  };
  for (std::int64_t k = 0; k < elements; k += kElements, panel += kColumns) {
    const T* first = row(k);
    const T* second = kElements == 2 && k + 1 < elements ? row(k + 1) : nullptr;
    for (int j = 0; j < kColumns; j += kWidth) {
      const std::int64_t count = columns - j;
      store(panel + j,
            count > 0 ? columnwise_units(first + j, second ? second + j : nullptr, count) : Vec{});
    }
  }
}

// One A panel of the transposed source: row i is column i of the source, k runs down the rows.
// Reads round_up(kRows, kWidth) columns whether they belong to the matrix or not; what they hold
// ends in rows of C that nobody keeps.
template <class T>
void pack_a_transposed(const T* source, std::int64_t stride, std::int64_t elements, float* panel) {
  constexpr int kElements = UnitsOf<T>::kElements;
  for (std::int64_t k = 0; k < elements; k += kWidth * kElements, panel += kRows * kWidth) {
    for (int i = 0; i < kRows; i += kWidth) {
      Vec block[kWidth] = {};
      for (int unit = 0; unit < kWidth && k + unit * kElements < elements; ++unit) {
        const std::int64_t row = k + unit * kElements;
        const T* first = source + row * stride + i;
        const bool paired = kElements == 2 && row + 1 < elements;
        block[unit] = columnwise_units(first, paired ? first + stride : nullptr, kWidth);
      }
      transpose(block);
      for (int lane = 0; lane < kWidth && i + lane < kRows; ++lane) {
        store(panel + (i + lane) * kWidth, block[lane]);
      }
    }
  }
}

}  // namespace SUDER_ISA
}  // namespace suder
