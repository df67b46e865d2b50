// Tiles of 16-bit matrices as TMA brings them: rows of 128 bytes in the 128-byte swizzle.
#pragma once

#include <cstddef>
#include <cstdint>

namespace suder::emulator {

struct TileCopy {
  const char* data;
  std::int64_t rows, cols, stride;  // of the matrix, in elements of two bytes
  int box_rows;
  unsigned char* shared;
  std::int64_t row, column;  // of the tile's first element

  std::size_t bytes() const { return static_cast<std::size_t>(box_rows) * 128; }
  // Zeros arrive for what lies outside the matrix.
  void land() const;
};

}  // namespace suder::emulator
