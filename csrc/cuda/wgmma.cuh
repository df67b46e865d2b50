// Products of a warp group (four warps, 128 threads) on operands in shared memory (sm_90a), and the
// instructions around them. A product runs on by itself: its sums must not be touched, nor its
// operands overwritten, before wgmma_wait has come past its group.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/matrix_descriptor.cuh"

// Does this compilation have the instructions? They are sm_90a's alone, not in sm_90 or sm_100.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define SUDER_WGMMA 1
#else
#define SUDER_WGMMA 0
#endif

namespace suder::cuda {

// Before the first product, and after any other use of the sums' registers.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
// Makes a group of the products since the last one.
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
// Waits for all but the newest kPending groups.
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// The sums of a 64 x 256 product. Element i of [n] is row warp * 16 + lane / 4 + i / 2 * 8 (warp:
// of the four) and column n * 8 + lane % 4 * 2 + i % 2.
using WgmmaSums = float[32][4];

#define SUDER_SUM_REGISTERS                                                                      \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "   \
  "%127}"
#define SUDER_SUMS(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])
#define SUDER_ALL_SUMS                                                                            \
  SUDER_SUMS(0), SUDER_SUMS(1), SUDER_SUMS(2), SUDER_SUMS(3), SUDER_SUMS(4), SUDER_SUMS(5),       \
      SUDER_SUMS(6), SUDER_SUMS(7), SUDER_SUMS(8), SUDER_SUMS(9), SUDER_SUMS(10), SUDER_SUMS(11), \
      SUDER_SUMS(12), SUDER_SUMS(13), SUDER_SUMS(14), SUDER_SUMS(15), SUDER_SUMS(16),             \
      SUDER_SUMS(17), SUDER_SUMS(18), SUDER_SUMS(19), SUDER_SUMS(20), SUDER_SUMS(21),             \
      SUDER_SUMS(22), SUDER_SUMS(23), SUDER_SUMS(24), SUDER_SUMS(25), SUDER_SUMS(26),             \
      SUDER_SUMS(27), SUDER_SUMS(28), SUDER_SUMS(29), SUDER_SUMS(30), SUDER_SUMS(31)
#define SUDER_WGMMA_64x256x16(type)                                                        \
  asm volatile(                                                                            \
      "{\n"                                                                                \
      ".reg .pred add;\n"                                                                  \
      "setp.ne.b32 add, %130, 0;\n"                                                        \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " " SUDER_SUM_REGISTERS \
      ", %128, %129, add, 1, 1, 0, 0;\n"                                                   \
      "}\n"                                                                                \
      : SUDER_ALL_SUMS                                                                     \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)))

// sums = a b, or sums += a b: 64 rows of `a`, 256 of `b`, 16 elements deep, both with their depth
// contiguous. Called by all threads of a warp group.
template <typename T>
__device__ inline void wgmma_64x256x16(WgmmaSums& sums, std::uint64_t a, std::uint64_t b,
                                       bool add) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    SUDER_WGMMA_64x256x16("bf16");
  } else {
    static_assert(std::is_same_v<T, __half>);
    SUDER_WGMMA_64x256x16("f16");
  }
}

// The same for 128 rows of `b`: half of the sums.
using WgmmaHalfSums = float[16][4];

#define SUDER_HALF_REGISTERS                                                         \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define SUDER_HALF_SUMS                                                                           \
  SUDER_SUMS(0), SUDER_SUMS(1), SUDER_SUMS(2), SUDER_SUMS(3), SUDER_SUMS(4), SUDER_SUMS(5),       \
      SUDER_SUMS(6), SUDER_SUMS(7), SUDER_SUMS(8), SUDER_SUMS(9), SUDER_SUMS(10), SUDER_SUMS(11), \
      SUDER_SUMS(12), SUDER_SUMS(13), SUDER_SUMS(14), SUDER_SUMS(15)
#define SUDER_WGMMA_64x128x16(type)                                                         \
  asm volatile(                                                                             \
      "{\n"                                                                                 \
      ".reg .pred add;\n"                                                                   \
      "setp.ne.b32 add, %66, 0;\n"                                                          \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " SUDER_HALF_REGISTERS \
      ", %64, %65, add, 1, 1, 0, 0;\n"                                                      \
      "}\n"                                                                                 \
      : SUDER_HALF_SUMS                                                                     \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)))

template <typename T>
__device__ inline void wgmma_64x128x16(WgmmaHalfSums& sums, std::uint64_t a, std::uint64_t b,
                                       bool add) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    SUDER_WGMMA_64x128x16("bf16");
  } else {
    static_assert(std::is_same_v<T, __half>);
    SUDER_WGMMA_64x128x16("f16");
  }
}

// After the wait for the products of these sums: the compiler, which knows nothing of the wait,
// must not use them earlier.
template <int kTiles>
__device__ inline void wgmma_settle(float (&sums)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) asm volatile("" : SUDER_SUMS(n)::"memory");
}

#undef SUDER_WGMMA_64x128x16
#undef SUDER_HALF_SUMS
#undef SUDER_HALF_REGISTERS
#undef SUDER_WGMMA_64x256x16
#undef SUDER_ALL_SUMS
#undef SUDER_SUMS
#undef SUDER_SUM_REGISTERS

// Gives registers back, or takes what others gave: all warps of a warp group, a multiple of 8.
template <int kRegisters>
__device__ inline void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

}  // namespace suder::cuda
