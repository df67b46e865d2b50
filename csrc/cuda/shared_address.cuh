// Shared memory as PTX instructions name it: by 32-bit addresses of its own.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace suder::cuda {

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace suder::cuda
