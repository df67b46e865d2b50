// What the fused backward does with products, whatever computes them: 128 tokens go through one
// part of the columns, and the gradient of each tile of logits is written down.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>

#include "cuda/fused_grad.h"
#include "cuda/launch.cuh"
#include "ops/linear_logprob/grad_epilogue.cuh"

namespace suder::cuda {

// Rows whose gradients one warp has, and adds up.
template <typename Mainloop>
inline constexpr int kWarpRows = Mainloop::kRowTiles * 16;

// See ForwardTask.
template <typename Mainloop, typename T>
struct GradTask {
  const FusedGradArguments<typename Mainloop::Operands, T>& a;
  RowFactors* rows;  // shared; targets are counted from the first column

  __device__ unsigned parts() const { return static_cast<unsigned>(a.parts.count()); }
  __device__ BlockPart part(std::int64_t index, int rank) const {
    return a.parts.template part<Mainloop>(index, rank);
  }

  __device__ void begin(const BlockPart& part, const Mainloop& mainloop) const {
    for (int i = mainloop.sharer(); i < Mainloop::kSharedRows; i += Mainloop::kSharers) {
      const int row = mainloop.first_shared_row() + i;
      RowFactors factors = a.rows.factors(part.first_row + row);
      factors.target -= a.first_column;
      rows[row] = factors;
    }
    mainloop.sync_sharers();
  }

  __device__ void add(const BlockPart& part, std::int64_t tile, typename Mainloop::Sums& sums,
                      const Mainloop& mainloop) const {
    const std::int64_t column = tile * Mainloop::kColumns + mainloop.column();
    const std::int64_t first_row = part.first_row + mainloop.row();
    const std::int64_t sums_row = first_row / kWarpRows<Mainloop>;
    const bool any_row = sums_row * kWarpRows<Mainloop> < a.operands.rows;
    finish_logits<Mainloop>(sums, a, column);
#pragma unroll
    for (int first = 0; first < Mainloop::kColumnTiles; first += kGroupTiles) {
      if (a.final_logit.softcap > 0.0f) {
        differentiate<Mainloop, true>(sums, first, rows, mainloop.row(), column, a.final_logit);
      } else {
        differentiate<Mainloop, false>(sums, first, rows, mainloop.row(), column, a.final_logit);
      }
      const std::int64_t group_column = column - mainloop.column() % 8 + first * 8;
      const std::int64_t columns = a.stride - group_column;
      if (a.column_sums != nullptr && any_row) {
        store_column_sums<Mainloop>(sums, first, a.column_sums + sums_row * a.stride + group_column,
                                    columns);
      }
      if (a.grad != nullptr) {
        store_gradients<Mainloop>(sums, first, a.grad + first_row * a.stride + group_column,
                                  a.stride, a.operands.rows - first_row, columns);
      }
    }
  }

  // The next part's begin overwrites what others may still read.
  __device__ void end(const BlockPart&, const Mainloop& mainloop) const { mainloop.sync_sharers(); }
};

template <typename Mainloop, typename T>
__device__ void grad_block(const FusedGradArguments<typename Mainloop::Operands, T>& a) {
  unsigned char* shared = dynamic_shared();
  auto* rows = reinterpret_cast<RowFactors*>(shared + Mainloop::kSharedBytes);
  Mainloop(a.operands, shared).run(GradTask<Mainloop, T>{a, rows});
}

template <typename Mainloop>
inline constexpr std::size_t kGradShared =
    Mainloop::kSharedBytes + Mainloop::kRows * sizeof(RowFactors);

template <typename Mainloop>
std::int64_t grad_row_parts(std::int64_t tokens) {
  return (tokens + kWarpRows<Mainloop> - 1) / kWarpRows<Mainloop>;
}

// Starts `kernel`, whose blocks call grad_block.
template <typename Mainloop, typename T, typename Kernel>
void run_grad(Kernel kernel, const FusedGrad& p, Stream stream) {
  if (!aligned_rows<T>(p.grad.data, p.grad.stride)) {
    throw std::invalid_argument("fused_grad: the gradient's rows must be 16-byte aligned");
  }
  const auto parts = BlockParts::of<Mainloop>(p.hidden.rows, p.weight.rows);
  const FusedGradArguments<typename Mainloop::Operands, T> arguments = {
      operands_of<Mainloop, T>(p.hidden, p.weight),
      Bias::of(p.bias, p.bias_dtype, p.dtype),
      FinalLogit(p.temperature, p.softcap),
      parts,
      {p.target, p.hidden.rows, p.vocab, p.ignore_index, p.lse, p.entropy, p.grad_logprob,
       p.grad_lse, p.grad_entropy},
      p.first_column,
      p.grad.stride,
      static_cast<T*>(p.grad.data),
      p.column_sums};
  launch_clusters(kernel, Mainloop::kCluster, {Mainloop::blocks(parts.count())},
                  {Mainloop::kThreads}, kGradShared<Mainloop>, stream, arguments);
}

}  // namespace suder::cuda
