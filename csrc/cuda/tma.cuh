// Loads of matrix tiles by the copy engine (TMA, sm_90 and newer): one thread asks, an mbarrier
// counts the bytes that have arrived.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/launch.cuh"
#include "cuda/mbarrier.cuh"
#include "cuda/vec.cuh"

namespace suder::cuda {

// A matrix in global memory, and the tile of it that one load brings. A kernel must get it as a
// __grid_constant__ parameter.
using TensorMap = CUtensorMap;

// Asked of the driver at run time: the module must load on machines that have none.
inline PFN_cuTensorMapEncodeTiled_v12000 find_tensor_map_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr const char* kName = "cuTensorMapEncodeTiled";
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion(kName, &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(kName, &function, cudaEnableDefault, &found);
#endif
  check(status, kName);
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw std::runtime_error("CUDA: the driver has no cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// Tiles of box_rows x box_cols 16-bit elements of [rows, cols]; what lies outside arrives as zeros.
// A tile's rows are 128 bytes, its 16-byte chunks exchanged in the 128-byte swizzle. Rows must be
// 16-byte aligned and not overlap.
template <typename T>
TensorMap tensor_map(const T* data, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                     int box_rows, int box_cols) {
  static_assert(sizeof(T) == 2);
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride_bytes[] = {static_cast<cuuint64_t>(stride) * sizeof(T)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_cols), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  TensorMap map;
  static const auto encode = find_tensor_map_encoder();
  const CUresult status =
      encode(&map,
             std::is_same_v<T, __half> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             2, const_cast<T*>(data), sizes, stride_bytes, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw std::runtime_error("CUDA: cuTensorMapEncodeTiled: error " + std::to_string(status));
  }
  return map;
}

__device__ inline void prefetch_tensor_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

// Starts the load of the tile whose first element is [row, column]; `barrier` counts its bytes, all
// of them, also those outside the matrix.
__device__ inline void tma_load(void* shared, const TensorMap* map, std::uint64_t* barrier,
                                std::int64_t row, std::int64_t column) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];\n" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(static_cast<int>(column)),
      "r"(static_cast<int>(row))
      : "memory");
}

// The same load into the same place of several blocks of the cluster, those whose bits are set in
// `ranks`; in each of them the barrier in the same place as `barrier` counts the bytes.
__device__ inline void tma_load_to(unsigned ranks, void* shared, const TensorMap* map,
                                   std::uint64_t* barrier, std::int64_t row, std::int64_t column) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;\n" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(static_cast<int>(column)),
      "r"(static_cast<int>(row)), "h"(static_cast<std::uint16_t>(ranks))
      : "memory");
}

}  // namespace suder::cuda
