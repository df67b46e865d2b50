// From a tile of products, in the registers of a block's threads, to logits: the same bits in the
// forward and in the backward.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "ops/linear_logprob/block_parts.cuh"

namespace suder::cuda {

// Calls change(z, c) for every sum z, c being its column from this thread's first.
template <typename Mainloop, typename Change>
__device__ void for_each_sum(typename Mainloop::Sums& sums, Change change) {
#pragma unroll
  for (int n = 0; n < Mainloop::kColumnTiles; ++n) {
#pragma unroll
    for (int m = 0; m < Mainloop::kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) change(sums[m][n][i], n * 8 + i % 2);
    }
  }
}

// Adds a bias that begins at this thread's first column and has `left` values from there.
template <typename Mainloop, typename T>
__device__ void add_bias(typename Mainloop::Sums& sums, const T* bias, int left) {
#pragma unroll
  for (int n = 0; n < Mainloop::kColumnTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float value = n * 8 + i < left ? to_float(bias[n * 8 + i]) : 0.0f;
#pragma unroll
      for (int m = 0; m < Mainloop::kRowTiles; ++m) {
        sums[m][n][i] += value;
        sums[m][n][2 + i] += value;
      }
    }
  }
}

// Turns products into final logits, in place; columns past the vocabulary become -inf. What a call
// does not ask for costs a branch a tile.
template <typename Mainloop, typename Arguments>
__device__ void finish_logits(typename Mainloop::Sums& sums, const Arguments& a,
                              std::int64_t column) {
  const std::int64_t there = a.operands.columns - column;
  const int left = there < kTileColumns ? static_cast<int>(there) : kTileColumns;
  if (a.bias.data != nullptr) {
    using T = typename Mainloop::Element;
    if (a.bias.wide) {
      add_bias<Mainloop>(sums, static_cast<const float*>(a.bias.data) + column, left);
    } else {
      add_bias<Mainloop>(sums, static_cast<const T*>(a.bias.data) + column, left);
    }
  }
  if (a.final_logit.softcap > 0.0f) {
    for_each_sum<Mainloop>(sums, [&](float& z, int) { z = a.final_logit.capped(z); });
  }
  if (left < Mainloop::kColumnTiles * 8) {
    for_each_sum<Mainloop>(sums, [&](float& z, int c) { z = c < left ? z : -INFINITY; });
  }
}

}  // namespace suder::cuda
