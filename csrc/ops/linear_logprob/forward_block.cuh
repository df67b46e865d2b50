// What the fused forward does with products, whatever computes them: 128 tokens go through one
// split of the vocabulary and leave one state each. A second kernel joins the splits in their
// order. The splits depend on the vocabulary alone, so a token gets the same bits in every batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>

#include "cuda/fused_forward.h"
#include "cuda/launch.cuh"
#include "cuda/row_results.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/vec.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {

inline constexpr int kTileColumns = 256;
// Enough splits to fill a card with the tokens of one image; and how many blocks of tokens share a
// split's weights in L2.
inline constexpr std::int64_t kMostSplits = 64, kRowGroup = 16;

struct Splits {
  std::int64_t tiles, tiles_each, count;
};

inline Splits splits_of(std::int64_t vocab) {
  const std::int64_t tiles = (vocab + kTileColumns - 1) / kTileColumns;
  const std::int64_t each = (tiles + kMostSplits - 1) / kMostSplits;
  return {tiles, each, (tiles + each - 1) / each};
}

template <typename Operands>
struct ForwardArguments {
  Operands operands;
  const float* bias;
  const std::int64_t* target;
  FinalLogit final_logit;
  Splits splits;
  std::int64_t row_blocks;
  RowState* state;  // [splits, tokens]
};

// What a block knows of its 128 tokens: one state per warp that reads a token's logits.
template <typename Mainloop>
struct BlockStates {
  OnlineLse lse[Mainloop::kRows][Mainloop::kColumnWarps];
  float target_logit[Mainloop::kRows];
  std::int64_t target[Mainloop::kRows];
};

// One row of a warp's tile: this thread's values, then the four lanes that share the row. Where the
// tensor cores are fast this is what they wait for, so an element costs seven instructions, one of
// them a power of two. Sums are of differences to the maximum, rounded once: see online_lse.h.
template <int kTiles>
__device__ OnlineLse row_lse(const float (&sums)[kTiles][4], int half, float inverse_temperature) {
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
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float bits = (sums[n][2 * half + i] - max) * scale, e = exp2_approx(bits);
      s.sum += e;
      s.weighted = fmaf(e, fmaxf(bits, -200.0f), s.weighted);  // 0 * -inf is not 0
    }
  }
  s.weighted *= kLn2;
  for (int lanes = 1; lanes <= 2; lanes *= 2) {
    s.sum += __shfl_xor_sync(kAllLanes, s.sum, lanes);
    s.weighted += __shfl_xor_sync(kAllLanes, s.weighted, lanes);
  }
  return s;
}

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

// Turns products into final logits, in place; columns past the vocabulary become -inf. What a call
// does not ask for costs a branch a tile.
template <typename Mainloop>
__device__ void finish_logits(typename Mainloop::Sums& sums,
                              const ForwardArguments<typename Mainloop::Operands>& a,
                              std::int64_t column) {
  const std::int64_t there = a.operands.columns - column;
  const int left = there < kTileColumns ? static_cast<int>(there) : kTileColumns;
  if (a.bias != nullptr) {
    const float* bias = a.bias + column;
#pragma unroll
    for (int n = 0; n < Mainloop::kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float value = n * 8 + i < left ? bias[n * 8 + i] : 0.0f;
#pragma unroll
        for (int m = 0; m < Mainloop::kRowTiles; ++m) {
          sums[m][n][i] += value;
          sums[m][n][2 + i] += value;
        }
      }
    }
  }
  if (a.final_logit.softcap > 0.0f) {
    for_each_sum<Mainloop>(sums, [&](float& z, int) { z = a.final_logit.capped(z); });
  }
  if (left < Mainloop::kColumnTiles * 8) {
    for_each_sum<Mainloop>(sums, [&](float& z, int c) { z = c < left ? z : -INFINITY; });
  }
}

template <typename Mainloop>
__device__ void add_tile(BlockStates<Mainloop>& states, const typename Mainloop::Sums& sums,
                         int first_row, std::int64_t column, float inverse_temperature) {
  const int warp_column = static_cast<int>(threadIdx.x) / kWarpSize % Mainloop::kColumnWarps;
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
      const OnlineLse part = row_lse(sums[m], half, inverse_temperature);
      OnlineLse& place = states.lse[row][warp_column];
      if (threadIdx.x % 4 == 0) place = merge(place, part, inverse_temperature);
    }
  }
}

// What is computed in one go: kRows tokens, and tiles of one split.
struct ForwardPart {
  std::int64_t first_row, split, first_tile, end_tile;
};

// What a mainloop is asked to do. Threads that share rows (a warp, or the block) call begin and end
// together; who they are is the mainloop's to say.
template <typename Mainloop>
struct ForwardTask {
  const ForwardArguments<typename Mainloop::Operands>& a;
  BlockStates<Mainloop>& states;

  __device__ std::int64_t parts() const { return a.row_blocks * a.splits.count; }

  // Parts computed at the same time share splits: row blocks of one group first, then splits, then
  // groups.
  __device__ ForwardPart part(std::int64_t index) const {
    const std::int64_t group = index / (kRowGroup * a.splits.count);
    const std::int64_t within = index % (kRowGroup * a.splits.count);
    const std::int64_t left = a.row_blocks - group * kRowGroup;
    const std::int64_t group_rows = left < kRowGroup ? left : kRowGroup;
    const std::int64_t split = within / group_rows, first_tile = split * a.splits.tiles_each;
    const std::int64_t end_tile = first_tile + a.splits.tiles_each;
    return {(group * kRowGroup + within % group_rows) * Mainloop::kRows, split, first_tile,
            end_tile < a.splits.tiles ? end_tile : a.splits.tiles};
  }

  __device__ void begin(const ForwardPart& part, const Mainloop& mainloop) const {
    for (int i = mainloop.sharer(); i < Mainloop::kSharedRows; i += Mainloop::kSharers) {
      const int row = mainloop.first_shared_row() + i;
      for (int warp = 0; warp < Mainloop::kColumnWarps; ++warp) states.lse[row][warp] = OnlineLse{};
      states.target_logit[row] = NAN;
      const bool real = part.first_row + row < a.operands.rows;
      const std::int64_t target = real ? a.target[part.first_row + row] : -1;
      // Not one of the columns that fill up the last tile.
      states.target[row] = target < a.operands.columns ? target : -1;
    }
    mainloop.sync_sharers();
  }

  __device__ void add(std::int64_t tile, typename Mainloop::Sums& sums,
                      const Mainloop& mainloop) const {
    const std::int64_t column = tile * Mainloop::kColumns + mainloop.column();
    finish_logits<Mainloop>(sums, a, column);
    add_tile(states, sums, mainloop.row(), column, a.final_logit.inverse_temperature);
  }

  __device__ void end(const ForwardPart& part, const Mainloop& mainloop) const {
    mainloop.sync_sharers();
    for (int i = mainloop.sharer(); i < Mainloop::kSharedRows; i += Mainloop::kSharers) {
      const int row = mainloop.first_shared_row() + i;
      if (part.first_row + row >= a.operands.rows) return;
      OnlineLse lse = states.lse[row][0];
      for (int warp = 1; warp < Mainloop::kColumnWarps; ++warp) {
        lse = merge(lse, states.lse[row][warp], a.final_logit.inverse_temperature);
      }
      a.state[part.split * a.operands.rows + part.first_row + row] = {lse,
                                                                      states.target_logit[row]};
    }
  }
};

template <typename Mainloop>
__device__ void forward_block(const ForwardArguments<typename Mainloop::Operands>& a) {
  unsigned char* shared = dynamic_shared();
  auto& states = *reinterpret_cast<BlockStates<Mainloop>*>(shared + Mainloop::kSharedBytes);
  Mainloop(a.operands, shared).run(ForwardTask<Mainloop>{a, states});
}

template <typename Mainloop>
inline constexpr std::size_t kForwardShared =
    Mainloop::kSharedBytes + sizeof(BlockStates<Mainloop>);

// Starts `kernel`, whose blocks call forward_block, and the merge of its states.
template <typename Mainloop, typename T, typename Kernel>
void run_forward(Kernel kernel, const FusedForward& p, Stream stream) {
  static_assert(Mainloop::kColumns == kTileColumns);
  const auto* hidden = static_cast<const T*>(p.hidden.data);
  const auto* weight = static_cast<const T*>(p.weight.data);
  if (p.hidden.cols % 8 != 0 || !aligned_rows<T>(hidden, p.hidden.stride) ||
      !aligned_rows<T>(weight, p.weight.stride)) {
    throw std::invalid_argument("fused_forward: rows must be 16-byte aligned, D a multiple of 8");
  }
  const Splits splits = splits_of(p.weight.rows);
  const std::int64_t row_blocks = (p.hidden.rows + Mainloop::kRows - 1) / Mainloop::kRows;
  auto* state = reinterpret_cast<RowState*>(p.workspace);
  const ForwardArguments<typename Mainloop::Operands> arguments = {
      Mainloop::operands(hidden, p.hidden.stride, weight, p.weight.stride, p.hidden.rows,
                         p.weight.rows, p.hidden.cols),
      p.bias,
      p.target,
      FinalLogit(p.temperature, p.softcap),
      splits,
      row_blocks,
      state};
  launch(kernel, {Mainloop::blocks(row_blocks * splits.count)}, {Mainloop::kThreads},
         kForwardShared<Mainloop>, stream, arguments);
  merge_row_states({state, splits.count, p.hidden.rows},
                   {p.target, p.ignore_index, p.logprob, p.lse, p.entropy, 1.0f / p.temperature},
                   stream);
}

}  // namespace suder::cuda
