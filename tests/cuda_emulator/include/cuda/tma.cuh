// Stands in for csrc/cuda/tma.cuh: the PTX manual's "cp.async.bulk.tensor" with the 128-byte swizzle.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/mbarrier.cuh"
#include "cuda/shared_address.cuh"
#include "mbarriers.h"

namespace suder::cuda {

struct alignas(64) TensorMap {
  const char* data;
  std::int64_t rows, cols, stride;  // in elements of two bytes
  int box_rows, box_cols;
};

// The limits that cuTensorMapEncodeTiled documents.
template <typename T>
TensorMap tensor_map(const T* data, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                     int box_rows, int box_cols) {
  const bool possible = reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 8 == 0 &&
                        stride >= cols && rows > 0 && cols > 0 && box_rows <= 256 &&
                        box_cols * sizeof(T) == 128;
  if (!possible) throw std::runtime_error("emulated tensor_map: not a matrix that TMA takes");
  return {reinterpret_cast<const char*>(data), rows, cols, stride, box_rows, box_cols};
}

inline void prefetch_tensor_map(const TensorMap* /*map*/) {}

// Chunks of 16 bytes go to the address whose bits 4 to 6 are exchanged by bits 7 to 9.
inline void land_tile(const TensorMap& map, unsigned char* shared, std::int64_t row,
                      std::int64_t column) {
  const std::uint32_t start = shared_address(shared);
  for (int r = 0; r < map.box_rows; ++r) {
    for (int byte = 0; byte < 128; byte += 2) {
      const std::uint32_t plain = start + static_cast<std::uint32_t>(r * 128 + byte);
      unsigned char* place = shared + ((plain ^ (plain >> 7 & 7) << 4) - start);
      const std::int64_t at_row = row + r, at_column = column + byte / 2;
      if (at_row < map.rows && at_column < map.cols) {
        std::memcpy(place, map.data + 2 * (at_row * map.stride + at_column), 2);
      } else {
        std::memset(place, 0, 2);
      }
    }
  }
}

inline void tma_load(void* shared, const TensorMap* map, std::uint64_t* barrier, std::int64_t row,
                     std::int64_t column, Site site = Site::current()) {
  if (shared_address(shared) % 1024 != 0) {
    suder::emulator::fail("a swizzled tile that does not begin at a multiple of 1024", site);
  }
  auto* place = static_cast<unsigned char*>(shared);
  suder::emulator::mbarriers::copy(
      barrier, shared, static_cast<std::size_t>(map->box_rows) * 128,
      [map = *map, place, row, column] { land_tile(map, place, row, column); }, site);
}

}  // namespace suder::cuda
