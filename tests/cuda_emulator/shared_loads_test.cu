// The emulator's loads for several blocks: two share what they load, as the Hopper forward does,
// and each way in which that can go wrong is caught.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <vector>

#include "cuda/cluster.cuh"
#include "cuda/mbarrier.cuh"
#include "cuda/shared_address.cuh"
#include "cuda/tma.cuh"
#include "cuda/wgmma.cuh"
#include "test_support.h"

namespace {

using namespace suder::cuda;

enum class Bug {
  kNone,
  kMeetEachStep,  // no bug: a cluster barrier, and no releases
  kBarriersNotShown,
  kOwnReleasesOnly,
  kReleasedTwiceHere,
  kReleasedToNobody,
  kReleasedBeforeProductsEnd,
  kLoadedForItself,
  kLoadedForNobody,
  kSameHalf,
  kOwnBytesOnly,
  kCopiesNotWaitedFor,
  kOneBlockLeaves,
  kBothLeave,
};

constexpr int kRows = 64, kColumns = 256, kHalf = kColumns / 2, kSteps = 3;
constexpr int kStage = (kRows + kColumns) * 128;

struct Pipeline {
  TensorMap a, b;
  Bug bug;
};

__device__ void load(const Pipeline& p, unsigned char* shared, std::uint64_t* full,
                     std::uint64_t* empty, int step) {
  const int rank = cluster_rank(), half = p.bug == Bug::kSameHalf ? 0 : rank;
  const unsigned own = 1u << rank;
  const unsigned ranks = p.bug == Bug::kLoadedForItself   ? own
                         : p.bug == Bug::kLoadedForNobody ? own | 4u
                                                          : 3u;
  if (p.bug != Bug::kMeetEachStep) mbarrier_wait(empty, static_cast<unsigned>(step + 1) % 2);
  mbarrier_arrive_expect(full, p.bug == Bug::kOwnBytesOnly ? kStage - kHalf * 128 : kStage);
  tma_load(shared, &p.a, full, rank * kRows, step * 64);
  tma_load_to(ranks, shared + (kRows + half * kHalf) * 128, &p.b, full, half * kHalf, step * 64);
}

__device__ void release(Bug bug, std::uint64_t* empty) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (bug == Bug::kMeetEachStep) {
    sync_cluster();
  } else if (bug == Bug::kOwnReleasesOnly) {
    if (lane == 0) mbarrier_arrive(empty);
  } else if (lane < 2) {
    mbarrier_arrive_at(empty, bug == Bug::kReleasedTwiceHere  ? cluster_rank()
                              : bug == Bug::kReleasedToNobody ? lane + 1
                                                              : lane);
  }
}

__device__ std::uint64_t operand(const unsigned char* place) {
  return matrix_descriptor(shared_address(place), 16, 1024, Swizzle::k128Bytes);
}

// A warp group and a stage in each of two blocks: c = a b for 64 rows of each, 256 columns.
__global__ void shared_columns(const __grid_constant__ Pipeline p, float* c) {
  unsigned char* shared = dynamic_shared();
  auto* full = reinterpret_cast<std::uint64_t*>(shared + kStage);
  std::uint64_t* empty = full + 1;
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init(empty, p.bug == Bug::kOwnReleasesOnly ? 4 : 8);
    mbarrier_fence_init();
  }
  if (p.bug == Bug::kBarriersNotShown) {
    __syncthreads();
  } else {
    sync_cluster();
  }
  WgmmaSums sums;
  for (int step = 0; step < kSteps; ++step) {
    if (threadIdx.x == 0) load(p, shared, full, empty, step);
    if (p.bug == Bug::kCopiesNotWaitedFor && step == 2) break;
    mbarrier_wait(full, static_cast<unsigned>(step) % 2);
    wgmma_fence();
    for (unsigned k = 0; k < 128; k += 32) {
      wgmma_64x256x16<__nv_bfloat16>(sums, advance(operand(shared), k),
                                     advance(operand(shared + kRows * 128), k), step > 0 || k > 0);
    }
    wgmma_commit();
    if (p.bug == Bug::kReleasedBeforeProductsEnd) release(p.bug, empty);
    wgmma_wait<0>();
    if (p.bug != Bug::kReleasedBeforeProductsEnd) release(p.bug, empty);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = cluster_rank() * kRows + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  for (int n = 0; n < 32; ++n) {
    for (int i = 0; i < 4; ++i) {
      c[(row + i / 2 * 8) * kColumns + n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
    }
  }
  if (p.bug == Bug::kBothLeave) return;
  if (p.bug == Bug::kOneBlockLeaves && cluster_rank() == 0) return;
  sync_cluster();
}

struct Outcome {
  std::string message;
  int wrong;  // elements that differ from the product
};

Outcome run(Bug bug, int rows = 2 * kRows) {
  constexpr int depth = kSteps * 64;
  std::vector<__nv_bfloat16> a(static_cast<std::size_t>(rows * depth)), b(kColumns * depth);
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < rows; ++i) {
      a[static_cast<std::size_t>(i * depth + k)] = __float2bfloat16_rn(value_a(i, k));
    }
    for (int j = 0; j < kColumns; ++j) {
      b[static_cast<std::size_t>(j * depth + k)] = __float2bfloat16_rn(value_b(j, k));
    }
  }
  const Pipeline p = {tensor_map(a.data(), rows, depth, depth, kRows, 64),
                      tensor_map(b.data(), kColumns, depth, depth, kHalf, 64), bug};
  std::vector<float> c(2 * kRows * kColumns, -1.0f);
  Outcome outcome = {report_clusters(shared_columns, 2, {2}, {128}, kStage + 16, p, c.data()), 0};
  for (int i = 0; i < 2 * kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      float sum = 0;
      for (int k = 0; k < depth && i < rows; ++k) sum += value_a(i, k) * value_b(j, k);
      outcome.wrong += c[static_cast<std::size_t>(i * kColumns + j)] != sum;
    }
  }
  return outcome;
}

void test_features() {
  for (const int rows : {2 * kRows, kRows + 5, 9}) {  // of 9, the second block has none
    const Outcome outcome = run(Bug::kNone, rows);
    expect(outcome.message.empty(), "blocks that share their loads run clean");
    expect(outcome.wrong == 0, "their product is right");
  }
  expect(run(Bug::kMeetEachStep).message.empty(), "a cluster barrier tells what it orders");
}

void test_planted_bugs() {
  const struct {
    Bug bug;
    const char *words, *what;
  } reported[] = {
      {Bug::kBarriersNotShown, "an mbarrier is used", "barriers shown to their own block only"},
      {Bug::kOwnReleasesOnly, "an earlier one may still be under way", "a stage in use over there"},
      {Bug::kReleasedTwiceHere, "an earlier one may still be under way", "releases that stay here"},
      {Bug::kReleasedBeforeProductsEnd, "overwrites an operand", "a stage released too early"},
      {Bug::kReleasedToNobody, "block 2 named in a cluster of 2", "a release to no block"},
      {Bug::kLoadedForItself, "deadlock", "a half that the other block never gets"},
      {Bug::kLoadedForNobody, "block 2 named in a cluster of 2", "a load for no block"},
      {Bug::kSameHalf, "an earlier one may still be under way", "one half loaded twice"},
      {Bug::kOwnBytesOnly, "fewer bytes were announced", "the other block's bytes not announced"},
      {Bug::kCopiesNotWaitedFor, "with a bulk copy under way", "copies not waited for"},
      {Bug::kOneBlockLeaves, "left the kernel", "a block that leaves early"},
      {Bug::kBothLeave, "left the kernel", "blocks that leave without each other"},
  };
  for (const auto& plant : reported) {
    expect_report(run(plant.bug).message, plant.words, plant.what);
  }
}

}  // namespace

void test_shared_loads() {
  test_features();
  test_planted_bugs();
}
