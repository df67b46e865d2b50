// Products of one block of rows with tile after tile of weight rows, on tensor cores (sm_80 and
// newer): 128 x 256 sums in registers, operands through a ring of shared-memory stages filled by
// cp.async. The ring runs on across tiles, so that a tile's epilogue overlaps the next one's loads.
//
// Sums run over the depth in a fixed order, the same for every row, wherever in a tile it lies.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/reduce.cuh"
#include "cuda/tensor_core.cuh"

namespace suder::cuda {

template <typename T>
struct MmaOperands {
  const T* a;  // [rows, depth]
  const T* b;  // [columns, depth]; depth a multiple of 8, rows 16-byte aligned
  std::int64_t rows, columns, depth, a_stride, b_stride;
};

template <typename T>
class MmaMainloop {
 public:
  using Element = T;
  using Operands = MmaOperands<T>;
  static constexpr int kRows = 128, kColumns = 256, kThreads = 256;
  static constexpr int kRowWarps = 2, kColumnWarps = 4;             // warps by rows and by columns
  static constexpr int kRowTiles = kRows / kRowWarps / 16;          // 16-row fragments of a warp
  static constexpr int kColumnTiles = kColumns / kColumnWarps / 8;  // 8-column fragments
  static constexpr int kDepth = 32, kStages = 3;                    // 3: fits the 99 KB of sm_86
  static constexpr int kSharedBytes = kStages * (kRows + kColumns) * kDepth * 2;
  // A thread's sums: element i of [m][n] is row m * 16 + lane / 4 + i / 2 * 8 and column
  // n * 8 + lane % 4 * 2 + i % 2 of its warp's part.
  using Sums = float[kRowTiles][kColumnTiles][4];

  static Operands operands(const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride,
                           std::int64_t rows, std::int64_t columns, std::int64_t depth) {
    return {a, b, rows, columns, depth, a_stride, b_stride};
  }

  static constexpr int kCluster = 1;  // blocks that compute a part
  // How many to start for so many parts.
  static unsigned blocks(std::int64_t parts) { return static_cast<unsigned>(parts); }

  __device__ MmaMainloop(const Operands& operands, unsigned char* shared)
      : p_(operands),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % kWarpSize),
        warp_(static_cast<int>(threadIdx.x) / kWarpSize) {}

  // This thread's first row and column within the block's tile.
  __device__ int row() const { return warp_ / kColumnWarps * kRowTiles * 16 + lane_ / 4; }
  __device__ int column() const { return warp_ % kColumnWarps * kColumnTiles * 8 + lane_ % 4 * 2; }

  // The threads that read one another's rows, and those rows: the block and all.
  static constexpr int kSharers = kThreads, kSharedRows = kRows;
  __device__ int sharer() const { return static_cast<int>(threadIdx.x); }
  __device__ int first_shared_row() const { return 0; }
  __device__ void sync_sharers() const { __syncthreads(); }

  // The block's part of the task: for every tile of kColumns columns, task.add(part, tile, sums).
  template <typename Task>
  __device__ void run(const Task& task) {
    const auto part = task.part(blockIdx.x, 0);
    const std::int64_t end_tile = part.end_tile;
    const std::int64_t steps = (p_.depth + kDepth - 1) / kDepth;
    first_row_ = part.first_row;
    load_tile_ = part.first_tile;
    load_k_ = 0;
    for (int stage = 0; stage < kStages - 1; ++stage) load_next(stage, end_tile);
    task.begin(part, *this);
    int stage = 0;
    Sums sums;
    for (std::int64_t tile = part.first_tile; tile < end_tile; ++tile) {
      clear(sums);
      for (std::int64_t step = 0; step < steps; ++step) {
        cp_async_wait<kStages - 2>();
        __syncthreads();  // the stage has arrived for all; the one before it is read no more
        load_next(stage == 0 ? kStages - 1 : stage - 1, end_tile);
        multiply(stage, sums);
        stage = stage == kStages - 1 ? 0 : stage + 1;
      }
      task.add(part, tile, sums, *this);
    }
    cp_async_wait<0>();
    task.end(part, *this);
  }

 private:
  static constexpr int kRowBytes = kDepth * 2, kStageBytes = (kRows + kColumns) * kRowBytes;

  __device__ static void clear(Sums& sums) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][n][i] = 0.0f;
      }
    }
  }

  // 16-byte chunk `chunk` of row `row`. Exchanging chunks by the row's number lets both the copies
  // and ldmatrix (8 rows at one chunk) touch every bank once.
  __device__ unsigned char* place(int stage, int row, int chunk) const {
    return shared_ + stage * kStageBytes + row * kRowBytes + ((chunk ^ (row >> 1 & 3)) << 4);
  }

  __device__ void load_next(int stage, std::int64_t end_tile) {
    if (load_tile_ < end_tile) {
      const int chunk = static_cast<int>(threadIdx.x) % 4, row = static_cast<int>(threadIdx.x) / 4;
      const std::int64_t k = load_k_ + chunk * 8;
      load_rows<kRows>(stage, 0, row, chunk, p_.a, p_.a_stride, first_row_, p_.rows, k);
      load_rows<kColumns>(stage, kRows, row, chunk, p_.b, p_.b_stride, load_tile_ * kColumns,
                          p_.columns, k);
      load_k_ += kDepth;
      if (load_k_ >= p_.depth) {
        load_k_ = 0;
        ++load_tile_;
      }
    }
    cp_async_commit();  // also an empty group: waiting counts groups
  }

  // Rows past the end and columns past the depth arrive as zeros.
  template <int kCount>
  __device__ void load_rows(int stage, int offset, int row, int chunk, const T* matrix,
                            std::int64_t stride, std::int64_t first, std::int64_t end,
                            std::int64_t k) const {
#pragma unroll
    for (int i = 0; i < kCount; i += kThreads / 4) {
      const std::int64_t r = first + row + i;
      const bool valid = r < end && k < p_.depth;
      cp_async_16(place(stage, offset + row + i, chunk), valid ? matrix + r * stride + k : matrix,
                  valid);
    }
  }

  __device__ void multiply(int stage, Sums& sums) const {
    const int a_row = warp_ / kColumnWarps * kRowTiles * 16 + lane_ % 16;
    const int b_row = kRows + warp_ % kColumnWarps * kColumnTiles * 8 + lane_ / 16 * 8 + lane_ % 8;
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      std::uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        ldmatrix_x4(a[m], place(stage, a_row + m * 16, k * 2 + lane_ / 16));
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; n += 2) {
        std::uint32_t b[4];
        ldmatrix_x4(b, place(stage, b_row + n * 8, k * 2 + lane_ / 8 % 2));
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          mma_16816<T>(sums[m][n], a[m], b);
          mma_16816<T>(sums[m][n + 1], a[m], b + 2);
        }
      }
    }
  }

  const Operands& p_;
  unsigned char* shared_;
  int lane_, warp_;
  std::int64_t first_row_ = 0, load_tile_ = 0, load_k_ = 0;
};

}  // namespace suder::cuda
