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
#include "cuda/vec.cuh"
#include "ops/linear_logprob/forward_epilogue.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {

// Enough splits to fill a card with the tokens of one image; and how many blocks of tokens share a
// split's weights in L2.
inline constexpr std::int64_t kMostSplits = 64, kRowGroup = 16;

inline Splits splits_of(std::int64_t vocab) {
  const std::int64_t tiles = (vocab + kTileColumns - 1) / kTileColumns;
  const std::int64_t each = (tiles + kMostSplits - 1) / kMostSplits;
  return {tiles, each, (tiles + each - 1) / each};
}

// What a block computes in one go: kRows tokens, and tiles of one split.
struct ForwardPart {
  std::int64_t first_row, split, first_tile, end_tile;
};

// What a mainloop is asked to do. Threads that share rows (a warp, or the block) call begin and end
// together; who they are is the mainloop's to say.
template <typename Mainloop>
struct ForwardTask {
  const ForwardArguments<typename Mainloop::Operands>& a;
  BlockStates<Mainloop>& states;

  // A part for every cluster of row blocks and split.
  __device__ std::int64_t parts() const { return a.row_clusters * a.splits.count; }

  // What the cluster's block `rank` does of a part; its rows may all lie past the end. Parts
  // computed at the same time share splits: row clusters of one group first, then splits, then
  // groups.
  __device__ ForwardPart part(std::int64_t index, int rank) const {
    constexpr std::int64_t most_rows = kRowGroup / Mainloop::kCluster;
    const std::int64_t group = index / (most_rows * a.splits.count);
    const std::int64_t within = index % (most_rows * a.splits.count);
    const std::int64_t left = a.row_clusters - group * most_rows;
    const std::int64_t group_rows = left < most_rows ? left : most_rows;
    const std::int64_t row_cluster = group * most_rows + within % group_rows;
    const std::int64_t split = within / group_rows, first_tile = split * a.splits.tiles_each;
    const std::int64_t end_tile = first_tile + a.splits.tiles_each;
    return {(row_cluster * Mainloop::kCluster + rank) * Mainloop::kRows, split, first_tile,
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
  constexpr std::int64_t cluster_rows = Mainloop::kCluster * Mainloop::kRows;
  const std::int64_t row_clusters = (p.hidden.rows + cluster_rows - 1) / cluster_rows;
  auto* state = reinterpret_cast<RowState*>(p.workspace);
  const ForwardArguments<typename Mainloop::Operands> arguments = {
      Mainloop::operands(hidden, p.hidden.stride, weight, p.weight.stride, p.hidden.rows,
                         p.weight.rows, p.hidden.cols),
      p.bias,
      p.target,
      FinalLogit(p.temperature, p.softcap),
      splits,
      row_clusters,
      state};
  launch_clusters(kernel, Mainloop::kCluster, {Mainloop::blocks(row_clusters * splits.count)},
                  {Mainloop::kThreads}, kForwardShared<Mainloop>, stream, arguments);
  merge_row_states({state, splits.count, p.hidden.rows},
                   {p.target, p.ignore_index, p.logprob, p.lse, p.entropy, 1.0f / p.temperature},
                   stream);
}

}  // namespace suder::cuda
