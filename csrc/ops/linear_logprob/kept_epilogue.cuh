// What the fused forward's epilogue writes down where a backward will follow: see kept_exps.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kept_exps.h"
#include "ops/linear_logprob/store_tile.cuh"

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

// `sums` holds exponentials times kKeptScale; `first_row` and `first_column` are the thread's first
// row and the first column of its warp's tile.
template <typename Mainloop>
__device__ void keep_exps(const KeptExps& kept, const typename Mainloop::Sums& sums,
                          std::int64_t first_row, std::int64_t first_column) {
  auto* exps = static_cast<__half*>(kept.exps) + first_row * kept.stride + first_column;
#pragma unroll
  for (int first = 0; first < Mainloop::kColumnTiles; first += kGroupTiles) {
    store_rounded<Mainloop>(sums, first, exps + first * 8, kept.stride, kept.tokens - first_row,
                            kept.stride - first_column - first * 8);
  }
}

}  // namespace suder::cuda
