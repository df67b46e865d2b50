// Products of blocks of rows with tile after tile of weight rows, on tensor cores (sm_80 and
// newer): 128 x 256 sums in registers, operands through a ring of shared-memory stages filled by
// cp.async. The ring runs on across tiles and parts, so that an epilogue overlaps the next tile's
// loads.
//
// 8 warps of 64 x 64 sums and one block a multiprocessor: the sums fill half of the registers, and
// with two sets of fragments no room is left for a second block. Two blocks of 128 x 128 would hide
// each other's epilogues (4% of a tile of depth 2048), but draw a third more from L2, 4.9 TB/s at
// an A100's 312 TFLOP/s, which is all that its L2 gives. Two warps a scheduler have 32 independent
// products each between loads of fragments, which is enough to keep the tensor cores busy.
//
// Sums run over the depth in a fixed order, the same for every row, wherever in a tile it lies, and
// for every kDepth.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tensor_core.cuh"

namespace suder::cuda {

template <typename T>
struct MmaOperands {
  const T* a;  // [rows, depth]
  const T* b;  // [columns, depth]; depth a multiple of 8, rows 16-byte aligned
  std::int64_t rows, columns, depth, a_stride, b_stride;
  // For the copies: bytes from one of a thread's rows to its next, and from behind its last one to
  // its first in the next stage.
  std::int64_t a_step, b_step, a_back, b_back;
};

// The depth of a stage. Three stages of the deep ring fit the 163 KB that a block has on sm_80, of
// the shallow one the 99 KB of sm_86, sm_89 and sm_120. Either way two stages are under way while
// one is read: 48 KB and more, twice what comes from L2 in the time of one load. A deep stage
// halves the barriers; more of them (sm_90 has 227 KB) would bring nothing.
inline constexpr int kDeepRing = 64, kShallowRing = 32;
template <int kRing>
inline constexpr std::size_t kMostShared = kRing == kDeepRing ? 166912 : 101376;

template <typename T, int kStageDepth>
class MmaMainloop {
 public:
  using Element = T;
  // The shallow ring's addresses leave no registers for what a forward keeps.
  static constexpr bool kKeepsExps = kStageDepth == kDeepRing;
  using Operands = MmaOperands<T>;
  static constexpr int kRows = 128, kColumns = 256, kThreads = 256;
  static constexpr int kRowWarps = 2, kColumnWarps = 4;             // warps by rows and by columns
  static constexpr int kRowTiles = kRows / kRowWarps / 16;          // 16-row fragments of a warp
  static constexpr int kColumnTiles = kColumns / kColumnWarps / 8;  // 8-column fragments
  static constexpr int kDepth = kStageDepth, kStages = 3;
  static constexpr int kSharedBytes = kStages * (kRows + kColumns) * kDepth * 2;
  // A thread's sums: element i of [m][n] is row m * 16 + lane / 4 + i / 2 * 8 and column
  // n * 8 + lane % 4 * 2 + i % 2 of its warp's part.
  using Sums = float[kRowTiles][kColumnTiles][4];

  static Operands operands(const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride,
                           std::int64_t rows, std::int64_t columns, std::int64_t depth) {
    const std::int64_t a_step = a_stride * kRowStep * 2, b_step = b_stride * kRowStep * 2;
    return {a,
            b,
            rows,
            columns,
            depth,
            a_stride,
            b_stride,
            a_step,
            b_step,
            kRowBytes - a_step * kSlices,
            kRowBytes - b_step * 2 * kSlices};
  }

  static constexpr int kCluster = 1;  // blocks that compute a part
  // How many to start for so many parts.
  static unsigned blocks(std::int64_t parts) {
    const std::int64_t most = multiprocessors();
    return static_cast<unsigned>(parts < most ? parts : most);
  }

  __device__ MmaMainloop(const Operands& operands, unsigned char* shared)
      : p_(operands),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % kWarpSize),
        warp_(static_cast<int>(threadIdx.x) / kWarpSize),
        a_fragment_(place(row() - lane_ / 4 + lane_ % 16, lane_ / 16)),
        b_fragment_(
            place(kRows + column() - lane_ % 4 * 2 + lane_ / 16 * 8 + lane_ % 8, lane_ / 8 % 2)) {}

  // This thread's first row and column within the block's tile.
  __device__ int row() const { return warp_ / kColumnWarps * kRowTiles * 16 + lane_ / 4; }
  __device__ int column() const { return warp_ % kColumnWarps * kColumnTiles * 8 + lane_ % 4 * 2; }

  // The threads that read one another's rows, and those rows: the block and all.
  static constexpr int kSharers = kThreads, kSharedRows = kRows;
  __device__ int sharer() const { return static_cast<int>(threadIdx.x); }
  __device__ int first_shared_row() const { return 0; }
  __device__ void sync_sharers() const { __syncthreads(); }

  // The block's parts of the task: for every tile of kColumns columns, task.add(part, tile, sums).
  template <typename Task>
  __device__ void run(const Task& task) {
    const int steps = static_cast<int>((p_.depth + kDepth - 1) / kDepth);
    begin_part(task);
    for (int stage = 0; stage < kStages - 1; ++stage) load_stage(task, stage);
    int stage = 0;
    Sums sums;
    for (unsigned index = blockIdx.x; index < task.parts(); index += gridDim.x) {
      const auto part = task.part(index, 0);
      task.begin(part, *this);
      for (int tile = part.first_tile; tile < part.end_tile; ++tile) {
        multiply_tile(task, stage, steps, sums);
        task.add(part, tile, sums, *this);
      }
      task.end(part, *this);
    }
    cp_async_wait<0>();
  }

 private:
  static constexpr int kRowBytes = kDepth * 2, kStageBytes = (kRows + kColumns) * kRowBytes;
  static constexpr int kSlices = kDepth / 16;  // what one product is deep
  static_assert(kSlices % 2 == 0);             // slice 0 is always in the same set of fragments
  // Copies: a thread has one chunk of 16 bytes of every kRowStep-th row; with each slice that is
  // multiplied, it starts one of the rows of `a` and two of `b`.
  static constexpr int kChunks = kRowBytes / 16, kRowStep = kThreads / kChunks;
  static_assert(kRows / kRowStep == kSlices && kColumns / kRowStep == 2 * kSlices);

  struct Fragments {
    std::uint32_t a[kRowTiles][4], b[kColumnTiles / 2][4];
  };

  // Where chunk `chunk` of row `row` of a stage lies. Exchanging chunks by the row's number lets
  // both the copies (8 lanes, 128 bytes) and ldmatrix (8 rows at one chunk) touch every bank once.
  // The exchange is of bits: chunk c ^ d of the row lies at place(row, c) ^ d * 16.
  __device__ static int place(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row * kRowBytes / 128 & (kChunks - 1))) << 4);
  }

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

  // What is copied next: this thread's chunk of its first row of each operand, and how many of its
  // rows there are; none after the last part.
  template <typename Task>
  __device__ void begin_part(const Task& task) {
    if (load_index_ >= task.parts()) {
      a_rows_ = b_rows_ = 0;
      load_tile_ = end_tile_ = 0;
      return;
    }
    const auto part = task.part(load_index_, 0);
    const std::int64_t row = part.first_row + copy_row();
    a_ = address(p_.a, row, p_.a_stride);
    a_rows_ = rows_there(p_.rows - row);
    load_tile_ = part.first_tile;
    end_tile_ = part.end_tile;
    begin_tile();
  }

  __device__ void begin_tile() {
    const std::int64_t row = std::int64_t{load_tile_} * kColumns + copy_row();
    b_ = address(p_.b, row, p_.b_stride);
    b_rows_ = rows_there(p_.columns - row);
  }

  __device__ static int copy_row() { return static_cast<int>(threadIdx.x) / kChunks; }
  __device__ static int copy_chunk() { return static_cast<int>(threadIdx.x) % kChunks; }
  __device__ static const char* address(const T* matrix, std::int64_t row, std::int64_t stride) {
    return reinterpret_cast<const char*>(matrix + row * stride + copy_chunk() * 8);
  }

  // How many of this thread's rows there are where so many are left from its first.
  __device__ static int rows_there(std::int64_t left) {
    if (left <= 0) return 0;
    return left < kColumns ? static_cast<int>((left + kRowStep - 1) / kRowStep) : kColumns;
  }

  // The slices of a stage in their order. Rows past the end and columns past the depth arrive as
  // zeros; so does all of a stage after the last part, which nobody reads.
  __device__ void load_slice(int stage, int slice) {
    const bool there = load_k_ + copy_chunk() * 8 < p_.depth;
    unsigned char* to = shared_ + stage * kStageBytes + copy_place_;
    cp_async_16(to + slice * kRowStep * kRowBytes, a_, there && slice < a_rows_);
    a_ += p_.a_step;
#pragma unroll
    for (int i = 2 * slice; i < 2 * slice + 2; ++i) {
      cp_async_16(to + (kRows + i * kRowStep) * kRowBytes, b_, there && i < b_rows_);
      b_ += p_.b_step;
    }
  }

  // Closes the stage that load_slice has filled, and goes on to the next one.
  template <typename Task>
  __device__ void end_stage(const Task& task) {
    cp_async_commit();
    a_ += p_.a_back;
    b_ += p_.b_back;
    load_k_ += kDepth;
    if (load_k_ < p_.depth) return;
    a_ -= load_k_ * static_cast<int>(sizeof(T));
    load_k_ = 0;
    if (++load_tile_ < end_tile_) return begin_tile();
    load_index_ += gridDim.x;
    begin_part(task);
  }

  template <typename Task>
  __device__ void load_stage(const Task& task, int stage) {
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) load_slice(stage, slice);
    end_stage(task);
  }

  // While a slice is multiplied, the fragments of the next one are on their way, and so are copies
  // into the stage that was read last.
  template <typename Task>
  __device__ void multiply_tile(const Task& task, int& stage, int steps, Sums& sums) {
    Fragments fragments[2];
    clear(sums);
    next_stage_arrived();
    load_fragments(fragments[0], stage, 0);
    for (int step = 0; step < steps; ++step) {
      const int free = stage == 0 ? kStages - 1 : stage - 1;
#pragma unroll
      for (int slice = 0; slice < kSlices; ++slice) {
        load_slice(free, slice);
        if (slice + 1 < kSlices) {
          load_fragments(fragments[(slice + 1) % 2], stage, slice + 1);
        } else {
          end_stage(task);
          stage = stage == kStages - 1 ? 0 : stage + 1;
          if (step + 1 < steps) {
            next_stage_arrived();
            load_fragments(fragments[0], stage, 0);
          }
        }
        multiply(fragments[slice % 2], sums);
      }
    }
  }

  // For all; and all have read the stage before it.
  __device__ static void next_stage_arrived() {
    cp_async_wait<kStages - 2>();
    __syncthreads();
  }

  __device__ void load_fragments(Fragments& fragments, int stage, int slice) const {
    const unsigned char* from = shared_ + stage * kStageBytes;
    const unsigned char* a = from + (a_fragment_ ^ slice * 32);
    const unsigned char* b = from + (b_fragment_ ^ slice * 32);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) ldmatrix_x4(fragments.a[m], a + m * 16 * kRowBytes);
#pragma unroll
    for (int n = 0; n < kColumnTiles / 2; ++n) {
      ldmatrix_x4(fragments.b[n], b + n * 16 * kRowBytes);
    }
  }

  __device__ static void multiply(const Fragments& fragments, Sums& sums) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        mma_16816<T>(sums[m][n], fragments.a[m], fragments.b[n / 2] + n % 2 * 2);
      }
    }
  }

  const Operands& p_;
  unsigned char* shared_;
  int lane_, warp_;
  int a_fragment_, b_fragment_;  // places of the first slice
  // The copies: the part, its tile and the depth they are at, and this thread's next chunks.
  unsigned load_index_ = blockIdx.x;
  int load_tile_ = 0, end_tile_ = 0, load_k_ = 0;
  int copy_place_ = place(copy_row(), copy_chunk()), a_rows_ = 0, b_rows_ = 0;
  const char *a_ = nullptr, *b_ = nullptr;
};

// Calls f with the depth of the current device's ring, as a type.
template <typename F>
void dispatch_ring(F&& f) {
  if (most_shared_bytes() >= kMostShared<kDeepRing>) {
    f.template operator()<kDeepRing>();
  } else {
    f.template operator()<kShallowRing>();
  }
}

}  // namespace suder::cuda
