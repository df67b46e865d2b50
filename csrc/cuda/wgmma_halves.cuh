// The products of wgmma_mainloop.cuh for an epilogue that is short of registers of its own: a tile
// has two halves of 128 columns with sums of their own, and the second half runs kSkew steps behind
// the first. While the epilogue of one half runs, the tensor cores have kSkew steps of the other:
// 1024 cycles of both groups, where an epilogue takes some 1300. Neither draws more from L2.
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
#include "cuda/wgmma_mainloop.cuh"

namespace suder::cuda {

template <typename T>
class WgmmaHalves {
 public:
  using Element = T;
  using Operands = WgmmaOperands;
  static constexpr int kGroups = 2, kGroupThreads = 128;      // warp groups that multiply
  static constexpr int kRows = 64 * kGroups, kColumns = 128;  // of a block, and of half a tile
  static constexpr int kHalves = 2;
  static constexpr int kCluster = 2;  // blocks that compute a part, and load kSharedColumns each
  static constexpr int kSharedColumns = kColumns / kCluster;
  static constexpr int kThreads = kGroupThreads * (kGroups + 1);
  static constexpr int kColumnWarps = 1, kRowTiles = 1, kColumnTiles = kColumns / 8;
  static constexpr int kDepth = 64, kSkew = 2;
  static constexpr bool kKeepsExps = true;
  // Stages of `a` are read by both halves, those of `b` by one. Of each, what two steps under way
  // hold, and two steps ahead.
  static constexpr int kStagesA = 5, kStagesB = 8;
  static constexpr int kBytesA = kRows * kDepth * 2, kBytesB = kColumns * kDepth * 2;
  static constexpr int kBarriers = 2 * kStagesB + kStagesA;
  static constexpr int kSharedBytes = kStagesA * kBytesA + kStagesB * kBytesB + kBarriers * 8;
  // A thread's sums of half a tile: element i of [0][n] is row lane / 4 + i / 2 * 8 and column
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

  __device__ WgmmaHalves(const Operands& operands, unsigned char* shared)
      : p_(operands),
        shared_(shared),
        full_(reinterpret_cast<std::uint64_t*>(b_place(kStagesB))),
        empty_(full_ + kStagesB),
        empty_a_(empty_ + kStagesB),
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

  // The cluster's parts of the task: in the groups that multiply, for every half of a tile,
  // task.add(part, its number, sums). All threads of the cluster must call it together.
  template <typename Task>
  __device__ void run(const Task& task) const {
    if (threadIdx.x == 0) start_barriers();
    sync_cluster();
    // Past the depth there are zeros: no tile is shallower than its halves are apart.
    const auto deep = static_cast<int>((p_.depth + kDepth - 1) / kDepth);
    const int steps = deep > kSkew ? deep : kSkew + 1;
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
  static_assert(kRowBytes == 128 && kBytesA % kAtomBytes == 0 && kBytesB % kAtomBytes == 0);
  static constexpr int kReaders = kGroups * kGroupThreads / kWarpSize;  // warps of a block
  static constexpr unsigned kWholeCluster = (1u << kCluster) - 1;

  // Stages are used in turn; a barrier's phase ends once a round.
  template <int kStages>
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
    for (int stage = 0; stage < kStagesB; ++stage) {
      mbarrier_init(full_ + stage, 1);  // the loading thread
      mbarrier_init(empty_ + stage, kCluster * kReaders);
    }
    for (int stage = 0; stage < kStagesA; ++stage) mbarrier_init(empty_a_ + stage, kReaders);
    mbarrier_fence_init();
  }

  // The same in all blocks of a cluster.
  __device__ static unsigned first_part() { return blockIdx.x / kCluster; }
  __device__ static unsigned part_step() { return gridDim.x / kCluster; }

  __device__ unsigned char* a_place(int stage) const { return shared_ + stage * kBytesA; }
  __device__ unsigned char* b_place(int stage) const {
    return shared_ + kStagesA * kBytesA + stage * kBytesB;
  }

  // In the order in which `multiply` reads.
  template <typename Task>
  __device__ void load(const Task& task, int steps) const {
    prefetch_tensor_map(&p_.a);
    prefetch_tensor_map(&p_.b);
    Place<kStagesA> a;
    Place<kStagesB> b;
    for (unsigned index = first_part(); index < task.parts(); index += part_step()) {
      const auto part = task.part(index, rank_);
      for (int tile = part.first_tile; tile < part.end_tile; ++tile) {
        for (int step = 0; step < steps + kSkew; ++step) {
          if (step < steps) {
            mbarrier_wait(empty_a_ + a.stage, a.parity ^ 1);
            mbarrier_wait(empty_ + b.stage, b.parity ^ 1);
            mbarrier_arrive_expect(full_ + b.stage, kBytesA + kBytesB);
            tma_load(a_place(a.stage), &p_.a, full_ + b.stage, part.first_row, step * kDepth);
            load_b(b, kHalves * tile, step);
            a.advance();
          }
          if (step >= kSkew) {
            mbarrier_wait(empty_ + b.stage, b.parity ^ 1);
            mbarrier_arrive_expect(full_ + b.stage, kBytesB);
            load_b(b, kHalves * tile + 1, step - kSkew);
          }
        }
      }
    }
  }

  // This block's share for the whole cluster; of the bytes that were announced the other block
  // brings the rest.
  __device__ void load_b(Place<kStagesB>& b, int half, int step) const {
    const int column = rank_ * kSharedColumns;
    tma_load_to(kWholeCluster, b_place(b.stage) + column * kRowBytes, &p_.b, full_ + b.stage,
                std::int64_t{half} * kColumns + column, step * kDepth);
    b.advance();
  }

  // What a warp has read of the rings, and what of it is not yet released: stages are released in
  // the order in which they are read.
  struct Reading {
    Place<kStagesB> b;
    int a_first = 0, a_second = 0;  // stages of the two halves
    int b_free = 0, a_free = 0, b_held = 0, a_held = 0;
  };

  // The tiles of a block, one after another. Those of which this group has no row come last
  // (block_parts.cuh): it leaves the tensor cores to the other group.
  template <typename Task, typename Part>
  struct Walk {
    const Task& task;
    int rank;
    unsigned index;
    Part part = {};
    int tile = 0;
    bool more = false;

    __device__ Walk(const Task& task, int rank) : task(task), rank(rank), index(first_part()) {
      begin_part();
    }
    __device__ void begin_part() {
      more = index < task.parts();
      if (!more) return;
      part = task.part(index, rank);
      tile = part.first_tile;
    }
    __device__ void advance() {
      if (++tile < part.end_tile) return;
      index += part_step();
      begin_part();
    }
  };

  template <typename Task>
  __device__ void multiply(const Task& task, int steps) const {
    using Part = decltype(task.part(0, 0));
    Reading at;
    Sums first, second;
    Walk<Task, Part> walk(task, rank_);
    if (has_rows(walk)) {
      begin_first(at, first);
      Part part = walk.part;
      int tile = walk.tile;
      task.begin(part, *this);
      for (;;) {
        multiply_both(at, first, second, steps);
        task.add(part, kHalves * tile, first, *this);
        walk.advance();
        if (!has_rows(walk)) break;
        wgmma_wait<0>();
        wgmma_settle(second[0]);
        release(at, 0, 0);
        begin_first(at, first);
        task.add(part, kHalves * tile + 1, second, *this);
        if (tile + 1 == part.end_tile) {
          task.end(part, *this);
          part = walk.part;
          task.begin(part, *this);
        }
        tile = walk.tile;
      }
      wgmma_wait<0>();
      release(at, 0, 0);
      wgmma_settle(second[0]);
      task.add(part, kHalves * tile + 1, second, *this);
      task.end(part, *this);
    }
    for (; walk.more; walk.advance()) pass(at, steps);
  }

  template <typename Walk>
  __device__ bool has_rows(const Walk& walk) const {
    return walk.more &&
           __shfl_sync(kAllLanes, walk.part.first_row + first_group_row() < p_.rows, 0);
  }

  __device__ void begin_first(Reading& at, Sums& first) const {
    multiply_step<true, true>(at, first);
#pragma unroll
    for (int step = 1; step < kSkew; ++step) multiply_step<true, false>(at, first);
    wgmma_commit();
  }

  // What is left of the first half, the second half, its last steps still under way.
  __device__ void multiply_both(Reading& at, Sums& first, Sums& second, int steps) const {
    multiply_step<true, false>(at, first);
    multiply_step<false, true>(at, second);
    next_step(at);
    for (int step = kSkew + 1; step < steps; ++step) {
      multiply_step<true, false>(at, first);
      multiply_step<false, false>(at, second);
      next_step(at);
    }
    // Nothing under way but what runs on beside an epilogue: else ptxas puts a wait after each
    // product.
    wgmma_wait<0>();
    wgmma_settle(first[0]);
    wgmma_settle(second[0]);
    release(at, 0, 0);
#pragma unroll
    for (int step = 0; step < kSkew; ++step) multiply_step<false, false>(at, second);
    wgmma_commit();
  }

  // The step before is done; this one's products run on beside the next one's wait.
  __device__ void next_step(Reading& at) const {
    wgmma_commit();
    wgmma_wait<1>();
    release(at, 2, 1);
  }

  // What is loaded for so many steps goes by: stages are released only once they are there, or a
  // release could count for the round before.
  __device__ void pass(Reading& at, int steps) const {
    for (int i = 0; i < kHalves * steps; ++i) {
      mbarrier_wait(full_ + at.b.stage, at.b.parity);
      __syncwarp();
      at.b.advance();
      ++at.b_held;
      if (i % kHalves == 0) ++at.a_held;
      release(at, 0, 0);
    }
    at.a_first = at.a_second = at.a_free;
  }

  // kFresh: sums begin here. Known when compiled, so that ptxas sees that an epilogue's use of the
  // registers ends before, and lets the other half's products run on.
  template <bool kFirst, bool kFresh>
  __device__ void multiply_step(Reading& at, Sums& sums) const {
    mbarrier_wait(full_ + at.b.stage, at.b.parity);
    __syncwarp();  // wgmma takes whole warps; lanes may have left the wait one by one
    wgmma_fence();
    int& stage = kFirst ? at.a_first : at.a_second;
    const std::uint64_t a = operand(a_place(stage) + first_group_row() * kRowBytes);
    const std::uint64_t b = operand(b_place(at.b.stage));
#pragma unroll
    for (int k = 0; k < kRowBytes; k += 32) {  // 16 elements
      wgmma_64x128x16<T>(sums[0], advance(a, k), advance(b, k), !kFresh || k > 0);
    }
    stage = stage == kStagesA - 1 ? 0 : stage + 1;
    at.b.advance();
    ++at.b_held;
    if (!kFirst) ++at.a_held;
  }

  __device__ int first_group_row() const { return (warp_ * kWarpSize / kGroupThreads - 1) * 64; }

  __device__ static std::uint64_t operand(const unsigned char* place) {
    return matrix_descriptor(shared_address(place), 16, kAtomBytes, Swizzle::k128Bytes);
  }

  // All but the newest `b_left` and `a_left`. Of `b` to every block of the cluster: each of them
  // writes into the stages of all.
  __device__ void release(Reading& at, int b_left, int a_left) const {
    for (; at.b_held > b_left; --at.b_held) {
      if (lane_ < kCluster) mbarrier_arrive_at(empty_ + at.b_free, lane_);
      at.b_free = at.b_free == kStagesB - 1 ? 0 : at.b_free + 1;
    }
    for (; at.a_held > a_left; --at.a_held) {
      if (lane_ == 0) mbarrier_arrive(empty_a_ + at.a_free);
      at.a_free = at.a_free == kStagesA - 1 ? 0 : at.a_free + 1;
    }
  }

  const Operands& p_;
  unsigned char* shared_;
  std::uint64_t *full_, *empty_, *empty_a_;
  int warp_, lane_, rank_;
};

}  // namespace suder::cuda
