// What the fused forward's epilogue writes down where a backward will follow: see kept_exps.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "cuda/kept_exps.h"
#include "cuda/quad.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/vec.cuh"

namespace suder::cuda {

inline constexpr float kKeptScale = 32768.0f;  // 2^15

// The maximum of a row of a warp's tile, from the four lanes that share the row.
template <typename Mainloop>
__device__ void keep_maximum(const KeptExps& kept, std::int64_t row, std::int64_t first_column,
                             float max) {
  constexpr int columns = Mainloop::kColumnTiles * 8;
  static_assert(columns % kKeptColumns == 0);
  const std::int64_t part = first_column / kKeptColumns;
  const std::int64_t left = (kept.stride + kKeptColumns - 1) / kKeptColumns - part;
  for (int i = static_cast<int>(threadIdx.x) % 4; i < columns / kKeptColumns; i += 4) {
    if (row < kept.tokens && i < left) kept.maxima[(part + i) * kept.tokens + row] = max;
  }
}

// Two neighbouring exponentials.
__device__ inline std::uint32_t kept_pair(float first, float second) {
  const __half pair[2] = {from_float<__half>(first * kKeptScale),
                          from_float<__half>(second * kKeptScale)};
  std::uint32_t word;
  std::memcpy(&word, pair, sizeof(word));
  return word;
}

// Where a row of a warp's tile is kept, and how many columns there are from there; 0 for none.
struct KeptRow {
  __half* exps;
  int columns;

  __device__ static KeptRow of(const KeptExps& kept, std::int64_t row, std::int64_t first_column) {
    const std::int64_t left = row < kept.tokens ? kept.stride - first_column : 0;
    return {static_cast<__half*>(kept.exps) + row * kept.stride + first_column,
            static_cast<int>(left < (1 << 30) ? left : 1 << 30)};
  }

  // 16 bytes at a time: a lane has 4 bytes of each of four neighbouring chunks, from the tile's
  // column `first` on; the four lanes that share the row exchange them for a whole chunk each.
  __device__ void store(int first, std::uint32_t (&words)[4]) const {
    transpose_quad(words);
    const int column = first + static_cast<int>(threadIdx.x) % 4 * 8;
    if (column < columns) store_16(exps + column, words);
  }
};

}  // namespace suder::cuda
