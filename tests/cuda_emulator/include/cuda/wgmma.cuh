// Stands in for csrc/cuda/wgmma.cuh: the PTX manual's "wgmma", kept by warp_groups.cc.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/matrix_descriptor.cuh"
#include "warp_groups.h"

#define SUDER_WGMMA 1

namespace suder::cuda {

using suder::emulator::Site;

inline void wgmma_fence() { suder::emulator::warp_groups::fence(); }
inline void wgmma_commit() { suder::emulator::warp_groups::commit(); }
template <int kPending>
void wgmma_wait(Site site = Site::current()) {
  suder::emulator::warp_groups::wait(kPending, site);
}

using WgmmaSums = float[32][4];
using WgmmaHalfSums = float[16][4];

template <typename T>
void wgmma_64x256x16(WgmmaSums& sums, std::uint64_t a, std::uint64_t b, bool add,
                     Site site = Site::current()) {
  suder::emulator::warp_groups::multiply({a, b, add, &sums[0][0], std::is_same_v<T, __half>, 256},
                                         site);
}
template <typename T>
void wgmma_64x128x16(WgmmaHalfSums& sums, std::uint64_t a, std::uint64_t b, bool add,
                     Site site = Site::current()) {
  suder::emulator::warp_groups::multiply({a, b, add, &sums[0][0], std::is_same_v<T, __half>, 128},
                                         site);
}

template <int kTiles>
void wgmma_settle(float (& /*sums*/)[kTiles][4]) {}

template <int kRegisters>
void shrink_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}
template <int kRegisters>
void grow_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
}

}  // namespace suder::cuda
