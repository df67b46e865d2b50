// The epilogue of the fused forward: a tile of products, in the registers of a block's threads,
// becomes logits and joins the states of the block's tokens.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/reduce.cuh"
#include "cuda/tensor_core.cuh"
#include "ops/linear_logprob/block_parts.cuh"
#include "ops/linear_logprob/kept_epilogue.cuh"
#include "ops/linear_logprob/tile_logits.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {

template <typename Operands>
struct ForwardArguments {
  Operands operands;
  Bias bias;
  const std::int64_t* target;
  FinalLogit final_logit;
  BlockParts parts;
  RowState* state;  // [splits, tokens]
  KeptExps kept;    // or nothing
};

// What a block knows of its 128 tokens: one state per warp that reads a token's logits.
// Neighbouring rows are twelve bytes apart, in other banks.
template <typename Mainloop>
struct BlockStates {
  OnlineLse lse[Mainloop::kColumnWarps][Mainloop::kRows];
  float target_logit[Mainloop::kRows];
  std::int64_t target[Mainloop::kRows];
};

// One row of a warp's tile: this thread's values, then the four lanes that share the row. Where the
// tensor cores are fast this is what they wait for, so an element costs seven instructions, one of
// them a power of two. Sums are of differences to the maximum, rounded once: see online_lse.h.
// With kKeep the exponentials go to `kept`, too, and the result is the same.
template <bool kKeep, int kTiles>
__device__ OnlineLse row_lse(const float (&sums)[kTiles][4], int half, float inverse_temperature,
                             const KeptRow& kept) {
  OnlineLse s;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) s.max = fmaxf(s.max, sums[n][2 * half + i]);  // never NaN
  }
  for (int lanes = 1; lanes <= 2; lanes *= 2) {
    s.max = fmaxf(s.max, __shfl_xor_sync(kAllLanes, s.max, lanes));
  }
  constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;
  const float max = s.max == -INFINITY ? 0.0f : s.max, scale = inverse_temperature * kLog2E;
  [[maybe_unused]] std::uint32_t words[4];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    [[maybe_unused]] float exps[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float bits = (sums[n][2 * half + i] - max) * scale, e = exp2_approx(bits);
      s.sum += e;
      s.weighted = fmaf(e, fmaxf(bits, -200.0f), s.weighted);  // 0 * -inf is not 0
      exps[i] = e;
    }
    if constexpr (kKeep) {
      words[n % 4] = kept_pair(exps[0], exps[1]);
      if (n % 4 == 3) kept.store((n - 3) * 8, words);
    }
  }
  s.weighted *= kLn2;
  for (int lanes = 1; lanes <= 2; lanes *= 2) {
    s.sum += __shfl_xor_sync(kAllLanes, s.sum, lanes);
    s.weighted += __shfl_xor_sync(kAllLanes, s.weighted, lanes);
  }
  return s;
}

// `first_row` is the thread's within the block, whose own is `block_row`.
template <bool kKeep, typename Mainloop>
__device__ void add_tile(BlockStates<Mainloop>& states, const typename Mainloop::Sums& sums,
                         int first_row, std::int64_t column, float inverse_temperature,
                         const KeptExps& kept, std::int64_t block_row) {
  const int warp_column = static_cast<int>(threadIdx.x) / kWarpSize % Mainloop::kColumnWarps;
  const std::int64_t tile_column = column - threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < Mainloop::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + m * 16 + half * 8;
      const std::int64_t target = states.target[row] - column;
      if (target >= 0 && target < Mainloop::kColumnTiles * 8) {  // in one tile of a row's many
#pragma unroll
        for (int n = 0; n < Mainloop::kColumnTiles; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (static_cast<int>(target) == n * 8 + i) {
              states.target_logit[row] = sums[m][n][2 * half + i];
            }
          }
        }
      }
      KeptRow kept_row = {};
      if constexpr (kKeep) kept_row = KeptRow::of(kept, block_row + row, tile_column);
      const OnlineLse part = row_lse<kKeep>(sums[m], half, inverse_temperature, kept_row);
      if constexpr (kKeep) {
        keep_maximum<Mainloop>(kept, block_row + row, tile_column, part.max);
      }
      OnlineLse& place = states.lse[warp_column][row];
      if (threadIdx.x % 4 == 0) place = merge(place, part, inverse_temperature);
    }
  }
}

}  // namespace suder::cuda
