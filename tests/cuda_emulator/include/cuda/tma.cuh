// Stands in for csrc/cuda/tma.cuh: the PTX manual's "cp.async.bulk.tensor" with the 128-byte
// swizzle.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/mbarrier.cuh"
#include "mbarriers.h"

namespace suder::cuda {

struct alignas(64) TensorMap {
  const char* data;
  std::int64_t rows, cols, stride;  // in elements of two bytes
  int box_rows;
};

// The limits that cuTensorMapEncodeTiled documents.
template <typename T>
TensorMap tensor_map(const T* data, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                     int box_rows, int box_cols) {
  const bool possible = reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 8 == 0 &&
                        stride >= cols && rows > 0 && cols > 0 && box_rows <= 256 &&
                        box_cols * sizeof(T) == 128;
  if (!possible) throw std::runtime_error("emulated tensor_map: not a matrix that TMA takes");
  return {reinterpret_cast<const char*>(data), rows, cols, stride, box_rows};
}

inline void prefetch_tensor_map(const TensorMap* /*map*/) {}

inline void tma_load_to(unsigned ranks, void* shared, const TensorMap* map, std::uint64_t* barrier,
                        std::int64_t row, std::int64_t column, Site site = Site::current()) {
  suder::emulator::mbarriers::copy(barrier, ranks,
                                   {map->data, map->rows, map->cols, map->stride, map->box_rows,
                                    static_cast<unsigned char*>(shared), row, column},
                                   site);
}

inline void tma_load(void* shared, const TensorMap* map, std::uint64_t* barrier, std::int64_t row,
                     std::int64_t column, Site site = Site::current()) {
  tma_load_to(1u << suder::emulator::position().rank, shared, map, barrier, row, column, site);
}

}  // namespace suder::cuda
