// The vocabulary of every op: element types and plain views of caller-owned memory.
#pragma once

#include <cstdint>

namespace suder {

enum class DType : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

// The 16-bit formats as storage; arithmetic is always float32.
struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

// A row-major matrix whose rows are contiguous and lie `stride` elements apart.
template <class Pointer>
struct MatrixView {
  Pointer data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;
};
using ConstMatrix = MatrixView<const void*>;
using Matrix = MatrixView<void*>;

}  // namespace suder
