// The products of mma_mainloop.cuh by Hopper's means (sm_90a): one warp group loads, by TMA, into a
// ring of shared-memory stages; two multiply, by wgmma, 64 of the block's 128 rows each. There is a
// block for every multiprocessor; the loads run on across tiles and parts, so that an epilogue
// overlaps the next one's loads.
//
// What one block loads from L2 in a step would take longer than its products (by
// benchmarks/model). So two blocks form a cluster, which takes part after part of the task:
// neighbouring rows, the same columns. Each loads its own rows of `a` and one half of the columns
// of `b`, that half for both. A stage is loaded again when the readers of both blocks have released
// it to both.
//
// Sums run over the depth in a fixed order, the same for every row, wherever in a tile it lies.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "cuda/cluster.cuh"
#include "cuda/mbarrier.cuh"
#include "cuda/reduce.cuh"
#include "cuda/shared_address.cuh"
#include "cuda/tma.cuh"
#include "cuda/wgmma.cuh"

namespace suder::cuda {

struct WgmmaOperands {
  TensorMap a, b;  // [rows, depth] and [columns, depth], in the mainloop's tiles
  std::int64_t rows, columns, depth;
};

template <typename T>
class WgmmaMainloop {
 public:
  using Element = T;
  using Operands = WgmmaOperands;
  static constexpr int kGroups = 2, kGroupThreads = 128;      // warp groups that multiply
  static constexpr int kRows = 64 * kGroups, kColumns = 256;  // of a block
  static constexpr int kCluster = 2;  // blocks that compute a part, and load kSharedColumns each
  static constexpr int kSharedColumns = kColumns / kCluster;
  static constexpr int kThreads = kGroupThreads * (kGroups + 1);
  static constexpr int kColumnWarps = 1, kRowTiles = 1, kColumnTiles = kColumns / 8;
  static constexpr int kDepth = 64, kStages = 4;
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes + 2 * kStages * 8;
  // A thread's sums: element i of [0][n] is row lane / 4 + i / 2 * 8 and column
  // n * 8 + lane % 4 * 2 + i % 2 of its warp's part.
  using Sums = float[kRowTiles][kColumnTiles][4];

  static Operands operands(const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride,
                           std::int64_t rows, std::int64_t columns, std::int64_t depth) {
    constexpr std::int64_t most = std::numeric_limits<int>::max();  // TMA's coordinates
    if (rows > most || columns > most || a_stride < depth || b_stride < depth) {
      throw std::invalid_argument("wgmma: fewer than 2^31 rows, which may not overlap");
    }
    return {tensor_map(a, rows, depth, a_stride, kRows, kDepth),
            tensor_map(b, columns, depth, b_stride, kSharedColumns, kDepth), rows, columns, depth};
  }

  // How many to start for so many parts.
  static unsigned blocks(std::int64_t parts) {
    const std::int64_t fit = multiprocessors() / kCluster, most = fit > 0 ? fit : 1;
    return static_cast<unsigned>((parts < most ? parts : most) * kCluster);
  }

  __device__ WgmmaMainloop(const Operands& operands, unsigned char* shared)
      : p_(operands),
        shared_(shared),
        full_(reinterpret_cast<std::uint64_t*>(shared + kStages * kStageBytes)),
        empty_(full_ + kStages),
        // From lane 0, so that the compiler knows it to be the same in all lanes.
        warp_(__shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarpSize, 0)),
        lane_(static_cast<int>(threadIdx.x) % kWarpSize),
        rank_(cluster_rank()) {}

  // This thread's first row and column within the block's tile; not for the group that loads.
  __device__ int row() const { return (warp_ - kGroupThreads / kWarpSize) * 16 + lane_ / 4; }
  __device__ int column() const { return lane_ % 4 * 2; }

  // The threads that read one another's rows, and those rows: a warp and its 16.
  static constexpr int kSharers = kWarpSize, kSharedRows = 16;
  __device__ int sharer() const { return lane_; }
  __device__ int first_shared_row() const { return (warp_ - kGroupThreads / kWarpSize) * 16; }
  __device__ void sync_sharers() const { __syncwarp(); }

  // The cluster's parts of the task: in the groups that multiply, for every tile of kColumns
  // columns, task.add(part, tile, sums). All threads of the cluster must call it together.
  template <typename Task>
  __device__ void run(const Task& task) const {
    if (threadIdx.x == 0) start_barriers();
    sync_cluster();
    const auto steps = static_cast<int>((p_.depth + kDepth - 1) / kDepth);
    if (warp_ < kGroupThreads / kWarpSize) {
      shrink_registers<kLoaderRegisters>();
      if (threadIdx.x == 0) load(task, steps);
    } else {
      grow_registers<kMultiplierRegisters>();
      multiply(task, steps);
    }
    sync_cluster();  // the other block's last releases arrive at this one's barriers
  }

 private:
  // The loader gives back registers and the others take them: together no more than the block
  // starts with, 168 a thread (.ci/cuda_gates.py sees to it), or they would wait for ever.
  static constexpr int kStartRegisters = 168, kLoaderRegisters = 40, kMultiplierRegisters = 232;
  static_assert(kLoaderRegisters + kGroups * kMultiplierRegisters <=
                (kGroups + 1) * kStartRegisters);
  // Eight rows of 128 bytes: the swizzle's period, at which stages and operands must begin.
  static constexpr int kRowBytes = kDepth * 2, kAtomBytes = 8 * kRowBytes;
  static_assert(kRowBytes == 128 && kStageBytes % kAtomBytes == 0);
  static constexpr int kReleases = kCluster * kGroups * kGroupThreads / kWarpSize;
  static constexpr unsigned kWholeCluster = (1u << kCluster) - 1;

  // Stages are used in turn; a barrier's phase ends once a round.
  struct Place {
    int stage = 0;
    unsigned parity = 0;
    __device__ void advance() {
      if (++stage < kStages) return;
      stage = 0;
      parity ^= 1;
    }
  };

  __device__ void start_barriers() const {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(full_ + stage, 1);           // the loading thread
      mbarrier_init(empty_ + stage, kReleases);  // every reading warp of the cluster
    }
    mbarrier_fence_init();
  }

  // The same in all blocks of a cluster.
  __device__ static std::int64_t first_part() { return blockIdx.x / kCluster; }
  __device__ static std::int64_t part_step() { return gridDim.x / kCluster; }

  __device__ unsigned char* a_place(int stage) const { return shared_ + stage * kStageBytes; }
  __device__ unsigned char* b_place(int stage) const { return a_place(stage) + kRows * kRowBytes; }

  template <typename Task>
  __device__ void load(const Task& task, int steps) const {
    prefetch_tensor_map(&p_.a);
    prefetch_tensor_map(&p_.b);
    Place at;
    const int shared_column = rank_ * kSharedColumns;
    for (std::int64_t index = first_part(); index < task.parts(); index += part_step()) {
      const auto part = task.part(index, rank_);
      for (int tile = part.first_tile; tile < part.end_tile; ++tile) {
        for (int step = 0; step < steps; ++step, at.advance()) {
          std::uint64_t* full = full_ + at.stage;
          mbarrier_wait(empty_ + at.stage, at.parity ^ 1);
          mbarrier_arrive_expect(full, kStageBytes);  // what the other block loads is among them
          tma_load(a_place(at.stage), &p_.a, full, part.first_row, step * kDepth);
          tma_load_to(kWholeCluster, b_place(at.stage) + shared_column * kRowBytes, &p_.b, full,
                      std::int64_t{tile} * kColumns + shared_column, step * kDepth);
        }
      }
    }
  }

  template <typename Task>
  __device__ void multiply(const Task& task, int steps) const {
    Place at;
    Sums sums;
    for (std::int64_t index = first_part(); index < task.parts(); index += part_step()) {
      const auto part = task.part(index, rank_);
      // With few tokens the rest of a block is large: a group that has none of them leaves the
      // tensor cores to the other one.
      if (part.first_row + first_group_row() >= p_.rows) {
        pass(at, (part.end_tile - part.first_tile) * steps);
        continue;
      }
      task.begin(part, *this);
      for (int tile = part.first_tile; tile < part.end_tile; ++tile) {
        multiply_tile(sums, at, steps);
        task.add(part, tile, sums, *this);
      }
      task.end(part, *this);
    }
  }

  __device__ int first_group_row() const { return (warp_ * kWarpSize / kGroupThreads - 1) * 64; }

  // What is loaded goes by: stages are released only once they are there, or a release could count
  // for the round before.
  __device__ void pass(Place& at, int steps) const {
    for (int step = 0; step < steps; ++step, at.advance()) {
      mbarrier_wait(full_ + at.stage, at.parity);
      __syncwarp();
      release(at.stage);
    }
  }

  __device__ void multiply_tile(Sums& sums, Place& at, int steps) const {
    int reading = at.stage;
    for (int step = 0; step < steps; ++step, at.advance()) {
      mbarrier_wait(full_ + at.stage, at.parity);
      __syncwarp();  // wgmma takes whole warps; lanes may have left the wait one by one
      wgmma_fence();
      const std::uint64_t a = operand(a_place(at.stage) + first_group_row() * kRowBytes);
      const std::uint64_t b = operand(b_place(at.stage));
#pragma unroll
      for (int k = 0; k < kRowBytes; k += 32) {  // 16 elements
        wgmma_64x256x16<T>(sums[0], advance(a, k), advance(b, k), step > 0 || k > 0);
      }
      wgmma_commit();
      // The step before is done; this one's products run on beside the next one's wait.
      wgmma_wait<1>();
      if (step > 0) release(reading);
      reading = at.stage;
    }
    wgmma_wait<0>();
    wgmma_settle(sums[0]);
    release(reading);
  }

  __device__ static std::uint64_t operand(const unsigned char* place) {
    return matrix_descriptor(shared_address(place), 16, kAtomBytes, Swizzle::k128Bytes);
  }

  // To every block of the cluster: each of them writes into the stages of all.
  __device__ void release(int stage) const {
    if (lane_ < kCluster) mbarrier_arrive_at(empty_ + stage, lane_);
  }

  const Operands& p_;
  unsigned char* shared_;
  std::uint64_t *full_, *empty_;
  int warp_, lane_, rank_;
};

}  // namespace suder::cuda
