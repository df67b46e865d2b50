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
#include "ops/linear_logprob/block_parts.cuh"
#include "ops/linear_logprob/forward_epilogue.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {

// What a mainloop is asked to do. Threads that share rows (a warp, or the block) call begin and end
// together; who they are is the mainloop's to say.
template <typename Mainloop>
struct ForwardTask {
  const ForwardArguments<typename Mainloop::Operands>& a;
  BlockStates<Mainloop>& states;

  __device__ unsigned parts() const { return static_cast<unsigned>(a.parts.count()); }
  __device__ BlockPart part(std::int64_t index, int rank) const {
    return a.parts.template part<Mainloop>(index, rank);
  }

  __device__ void begin(const BlockPart& part, const Mainloop& mainloop) const {
    for (int i = mainloop.sharer(); i < Mainloop::kSharedRows; i += Mainloop::kSharers) {
      const int row = mainloop.first_shared_row() + i;
      for (int warp = 0; warp < Mainloop::kColumnWarps; ++warp) states.lse[warp][row] = OnlineLse{};
      states.target_logit[row] = NAN;
      const bool real = part.first_row + row < a.operands.rows;
      const std::int64_t target = real ? a.target[part.first_row + row] : -1;
      // Not one of the columns that fill up the last tile.
      states.target[row] = target < a.operands.columns ? target : -1;
    }
    mainloop.sync_sharers();
  }

  __device__ void add(const BlockPart& part, std::int64_t tile, typename Mainloop::Sums& sums,
                      const Mainloop& mainloop) const {
    const std::int64_t column = tile * Mainloop::kColumns + mainloop.column();
    const float inverse_temperature = a.final_logit.inverse_temperature;
    finish_logits<Mainloop>(sums, a, column);
    if (Mainloop::kKeepsExps && part.first_row < a.kept.tokens) {
      add_tile<Mainloop::kKeepsExps>(states, sums, mainloop.row(), column, inverse_temperature,
                                     a.kept, part.first_row);
    } else {
      add_tile<false>(states, sums, mainloop.row(), column, inverse_temperature, a.kept,
                      part.first_row);
    }
  }

  __device__ void end(const BlockPart& part, const Mainloop& mainloop) const {
    mainloop.sync_sharers();
    for (int i = mainloop.sharer(); i < Mainloop::kSharedRows; i += Mainloop::kSharers) {
      const int row = mainloop.first_shared_row() + i;
      if (part.first_row + row >= a.operands.rows) return;
      OnlineLse lse = states.lse[0][row];
      for (int warp = 1; warp < Mainloop::kColumnWarps; ++warp) {
        lse = merge(lse, states.lse[warp][row], a.final_logit.inverse_temperature);
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
  if (!Mainloop::kKeepsExps && p.kept.tokens > 0) {
    throw std::invalid_argument("fused_forward: nothing is kept on this card");
  }
  const auto parts = BlockParts::of<Mainloop>(p.hidden.rows, p.weight.rows);
  auto* state = reinterpret_cast<RowState*>(p.workspace);
  const ForwardArguments<typename Mainloop::Operands> arguments = {
      operands_of<Mainloop, T>(p.hidden, p.weight),
      Bias::of(p.bias, p.bias_dtype, p.dtype),
      p.target,
      FinalLogit(p.temperature, p.softcap),
      parts,
      state,
      p.kept};
  launch_clusters(kernel, Mainloop::kCluster, {Mainloop::blocks(parts.count())},
                  {Mainloop::kThreads}, kForwardShared<Mainloop>, stream, arguments);
  merge_row_states({state, parts.splits.count, p.hidden.rows},
                   {p.target, p.ignore_index, p.logprob, p.lse, p.entropy, 1.0f / p.temperature,
                    p.kept.logprob, p.kept.tokens},
                   stream);
}

}  // namespace suder::cuda
