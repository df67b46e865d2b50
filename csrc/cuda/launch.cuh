// The one way kernels are started. tests/cuda_emulator has a file of the same name and functions,
// found first when kernels are compiled for the emulator.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

namespace suder::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
  }
}

// The block's dynamic shared memory, aligned for the 128-byte swizzle of TMA.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char suder_dynamic_shared[];
  return suder_dynamic_shared;
}

// Of the current device.
inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "device");
  return count;
}

// That a block may have, of the current device.
inline std::size_t most_shared_bytes() {
  int device = 0, bytes = 0;
  check(cudaGetDevice(&device), "device");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "device");
  return static_cast<std::size_t>(bytes);
}

// Puts the kernel on the stream and returns; nothing here waits for the device, so that launches
// can be captured into a CUDA graph. Arguments are converted to the kernel's parameter types. Every
// `cluster` neighbouring blocks form a cluster, and `grid` is a multiple of it.
//
// Clusters are asked for here, not by __cluster_dims__ at the kernel: that is an error where nvcc
// compiles for a card without them.
template <typename... P, typename... A>
void launch_clusters(void (*kernel)(P...), unsigned cluster, dim3 grid, dim3 block,
                     std::size_t shared_bytes, std::uintptr_t stream, A... arguments) {
  const void* entry = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 48 * 1024) {  // above it a kernel has to ask
    check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "shared memory");
  }
  cudaLaunchAttribute shape = {};
  shape.id = cudaLaunchAttributeClusterDimension;
  shape.val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = reinterpret_cast<cudaStream_t>(stream);
  config.attrs = &shape;
  config.numAttrs = cluster > 1 ? 1 : 0;
  std::tuple<P...> values(arguments...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        check(cudaLaunchKernelExC(&config, entry, pointers), "launch");
      },
      values);
}

template <typename... P, typename... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
            std::uintptr_t stream, A... arguments) {
  launch_clusters(kernel, 1, grid, block, shared_bytes, stream, arguments...);
}

}  // namespace suder::cuda
