// The epilogue of the fused backward: a tile of logits, in the registers of a block's threads,
// becomes the gradient of the logits, which goes to global memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "cuda/quad.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/vec.cuh"
#include "ops/linear_logprob/block_parts.cuh"
#include "ops/linear_logprob/tile_logits.cuh"
#include "ops/logprob/final_logit.cuh"
#include "ops/logprob/logit_derivative.cuh"

namespace suder::cuda {

template <typename Operands, typename T>
struct FusedGradArguments {
  Operands operands;
  Bias bias;
  FinalLogit final_logit;
  BlockParts parts;
  RowGradients rows;
  std::int64_t first_column, stride;
  T* grad;             // or absent
  float* column_sums;  // or absent
};

// Tiles of eight columns that are taken to the end together: the registers of the sums become free
// one group after the other.
inline constexpr int kGroupTiles = 8;

// Turns a thread's logits into their gradients, in place. A float32 log-sum-exp may be off by
// |lse| 2^-24, and so may each p. For large ones logits_grad_cuda.cu reads the row again
// (kExactLse); here that would be the product again, and nothing is done: a logit of that size is
// rounded by as much, and a gradient that is about to be rounded to 16 bits loses more than that
// for every |lse| below 4096.
template <typename Mainloop, bool kSoftcap>
__device__ void differentiate(typename Mainloop::Sums& sums, int first, const RowFactors* rows,
                              int first_row, std::int64_t column, const FinalLogit& final_logit) {
  constexpr float kLog2E = 1.44269504f;
#pragma unroll
  for (int m = 0; m < Mainloop::kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowFactors f = rows[first_row + m * 16 + half * 8];
      const std::int64_t there = f.target - column;
      const bool here = there >= 0 && there < Mainloop::kColumnTiles * 8;
      const int target = here ? static_cast<int>(there) : -1;
#pragma unroll
      for (int n = first; n < first + kGroupTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& z = sums[m][n][2 * half + i];
          const float log_p = final_logit.log_p(z, f.lse), p = exp2_approx(log_p * kLog2E);
          const float dz = derivative(f, log_p, p, target == n * 8 + i);
          if constexpr (kSoftcap) {
            z = f.zero ? 0.0f : dz * final_logit.slope(z);  // 0 * NaN is not 0
          } else {
            z = dz * final_logit.inverse_temperature;
          }
        }
      }
    }
  }
}

// Writes the sums over the rows of one warp; `column_sums` begins at the group's first column, and
// `columns` are left from there.
template <typename Mainloop>
__device__ void store_column_sums(const typename Mainloop::Sums& sums, int first,
                                  float* column_sums, std::int64_t columns) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  float2 values[kGroupTiles];
#pragma unroll
  for (int k = 0; k < kGroupTiles; ++k) {
    values[k] = {0.0f, 0.0f};
#pragma unroll
    for (int m = 0; m < Mainloop::kRowTiles; ++m) {
      const float (&z)[4] = sums[m][first + k];
      values[k] = {values[k].x + z[0] + z[2], values[k].y + z[1] + z[3]};
    }
  }
  const float2 sum = add_columns(values);
  const int column = lane / 4 * 8 + lane % 4 * 2;
  if (column < columns) *reinterpret_cast<float2*>(column_sums + column) = sum;
}

// Rounds and stores 16 bytes at a time. A lane has 4 bytes of each of four neighbouring chunks;
// four lanes exchange them for a whole chunk each. `grad` is the place of the thread's first row in
// the group's first column, `rows` and `columns` are left from there.
template <typename Mainloop, typename T>
__device__ void store_gradients(const typename Mainloop::Sums& sums, int first, T* grad,
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
        if (row < rows && column < columns) store_16(grad + row * stride + column, words);
      }
    }
  }
}

}  // namespace suder::cuda
