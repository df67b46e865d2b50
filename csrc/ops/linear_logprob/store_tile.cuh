// From a tile in the registers of a block's threads to 16-bit rows in global memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "cuda/quad.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/vec.cuh"

namespace suder::cuda {

// Tiles of eight columns that are taken to the end together: the registers of the sums become free
// one group after the other.
inline constexpr int kGroupTiles = 8;

// Rounds and stores 16 bytes at a time. A lane has 4 bytes of each of four neighbouring chunks;
// four lanes exchange them for a whole chunk each. `out` is the place of the thread's first row in
// the group's first column, `rows` and `columns` are left from there.
template <typename Mainloop, typename T>
__device__ void store_rounded(const typename Mainloop::Sums& sums, int first, T* out,
                              std::int64_t stride, std::int64_t rows, std::int64_t columns) {
#pragma unroll
  for (int m = 0; m < Mainloop::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = m * 16 + half * 8;
#pragma unroll
      for (int part = 0; part < kGroupTiles; part += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float (&z)[4] = sums[m][first + part + k];
          const T pair[2] = {from_float<T>(z[2 * half]), from_float<T>(z[2 * half + 1])};
          std::memcpy(&words[k], pair, sizeof(pair));
        }
        transpose_quad(words);
        const int column = (part + static_cast<int>(threadIdx.x) % 4) * 8;
        if (row < rows && column < columns) store_16(out + row * stride + column, words);
      }
    }
  }
}

}  // namespace suder::cuda
