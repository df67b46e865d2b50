// Element conversions and 16-byte loads and stores.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "suder/types.h"

namespace suder::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }

template <typename T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

// Elements in one 16-byte access.
template <typename T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// Threads of a block that reads a row of so many columns: no more than have `packs` packs each. By
// the width alone, like everything that a row's bits depend on.
template <typename T>
unsigned threads_for(std::int64_t columns, int packs, int most) {
  const std::int64_t each = packs * kPack<T>, wanted = (columns + each - 1) / each;
  const std::int64_t threads = (wanted + 31) / 32 * 32;
  return static_cast<unsigned>(threads < 32 ? 32 : threads < most ? threads : most);
}

// May every row be read in 16-byte accesses?
template <typename T>
bool aligned_rows(const void* data, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % kPack<T> == 0;
}

// 16 bytes as they lie in memory: a thread can have several under way before it looks at one.
template <typename T>
__device__ inline uint4 read_16(const T* aligned) {
  return *reinterpret_cast<const uint4*>(aligned);
}
// The same element by element, zeros from `columns` on.
template <typename T>
__device__ inline uint4 read_elements(const T* row, std::int64_t column, std::int64_t columns) {
  T values[kPack<T>];
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    values[i] = column + i < columns ? row[column + i] : from_float<T>(0.0f);
  }
  uint4 raw;
  std::memcpy(&raw, values, sizeof(raw));
  return raw;
}
template <typename T>
__device__ inline void unpack(const uint4& raw, float (&out)[kPack<T>]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    // The upper half of a float32 each; nvcc takes two instructions for every other one.
    const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t word = words[i / 2], bits = i % 2 ? word & 0xFFFF0000u : word << 16;
      std::memcpy(&out[i], &bits, sizeof(bits));
    }
  } else {
    T values[kPack<T>];
    std::memcpy(values, &raw, sizeof(raw));
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) out[i] = to_float(values[i]);
  }
}

// out[i] = row[column + i], or `fill` from `columns` on. Which thread reads which columns is the
// same whether or not rows are aligned: alignment must not change the order of a sum.
template <typename T>
__device__ inline void load_pack(const T* __restrict__ row, std::int64_t column,
                                 std::int64_t columns, bool aligned, float fill,
                                 float (&out)[kPack<T>]) {
  if (aligned && column + kPack<T> <= columns) {
    unpack<T>(read_16(row + column), out);
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    out[i] = column + i < columns ? to_float(row[column + i]) : fill;
  }
}

// Stores kCount consecutive elements (8 or 16 bytes), in one access if aligned.
template <typename T, int kCount>
__device__ inline void store_pack(T* row, std::int64_t column, std::int64_t columns, bool aligned,
                                  const float (&values)[kCount]) {
  T converted[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) converted[i] = from_float<T>(values[i]);
  if (aligned && column + kCount <= columns) {
    if constexpr (sizeof(converted) == 16) {
      uint4 raw;
      std::memcpy(&raw, converted, sizeof(raw));
      *reinterpret_cast<uint4*>(row + column) = raw;
    } else {
      static_assert(sizeof(converted) == 8);
      uint2 raw;
      std::memcpy(&raw, converted, sizeof(raw));
      *reinterpret_cast<uint2*>(row + column) = raw;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (column + i < columns) row[column + i] = converted[i];
  }
}

// Calls f.operator()<T>() with the device type that `dtype` stands for.
template <class F>
void dispatch_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      return f.template operator()<float>();
    case DType::kBFloat16:
      return f.template operator()<__nv_bfloat16>();
    case DType::kFloat16:
      return f.template operator()<__half>();
  }
}

}  // namespace suder::cuda
