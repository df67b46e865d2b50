// How wgmma is told of an operand in shared memory (PTX manual, "Matrix descriptor").
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace suder::cuda {

// The pattern in which an operand's 16-byte chunks are exchanged.
enum class Swizzle : std::uint64_t { kNone = 0, k128Bytes = 1, k64Bytes = 2, k32Bytes = 3 };

// `leading_bytes` lie between chunks along the depth (without a swizzle; else not looked at),
// `stride_bytes` between groups of eight rows. Addresses and distances are multiples of 16.
__device__ constexpr std::uint64_t matrix_descriptor(std::uint32_t address,
                                                     std::uint32_t leading_bytes,
                                                     std::uint32_t stride_bytes, Swizzle swizzle) {
  constexpr std::uint64_t mask = 0x3FFF;
  return (address >> 4 & mask) | (leading_bytes >> 4 & mask) << 16 |
         (stride_bytes >> 4 & mask) << 32 | static_cast<std::uint64_t>(swizzle) << 62;
}

// The same operand, so many bytes further on. Swizzles act on addresses, so a step along the depth
// within a row is a plain addition.
__device__ constexpr std::uint64_t advance(std::uint64_t descriptor, std::uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

}  // namespace suder::cuda
