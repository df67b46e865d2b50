// The emulator's clusters: their barriers, and arrivals at other blocks' mbarriers.
#include <cuda_runtime.h>

#include <vector>

#include "cuda/cluster.cuh"
#include "cuda/mbarrier.cuh"
#include "race_log.h"
#include "test_support.h"

namespace {

using namespace suder::cuda;

// Block 0 arrives at a barrier of block 1, which may or may not wait for it before it leaves.
__global__ void one_arrival(bool show, bool wait, bool meet) {
  auto* barrier = reinterpret_cast<std::uint64_t*>(dynamic_shared());
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_fence_init();
  }
  __syncthreads();
  if (show) sync_cluster();
  if (cluster_rank() == 0 && threadIdx.x == 0) mbarrier_arrive_at(barrier, 1);
  if (cluster_rank() == 1 && wait) mbarrier_wait(barrier, 0);
  if (meet) sync_cluster();
}

__global__ void half_a_cluster_barrier() {
  if (cluster_rank() == 1 || threadIdx.x < 64) sync_cluster();
}

__global__ void static_array_in_a_cluster(float* x) {
  __shared__ float shared[128];
  float& own = x[blockIdx.x * 128 + threadIdx.x];
  shared[threadIdx.x] = own;
  own = shared[threadIdx.x] + 1.0f;
}

void test_features() {
  expect(report_clusters(one_arrival, 2, {6}, {128}, 8, true, true, false).empty(),
         "a block may leave once it has waited for the other's arrival");
  expect(report_clusters(one_arrival, 2, {6}, {128}, 8, true, false, true).empty(),
         "a block may leave after a cluster barrier");
}

void test_planted_bugs() {
  // Block 0's arrival comes first, and meets block 1 still there: luck.
  expect_report(report_clusters(one_arrival, 2, {2}, {128}, 8, true, false, false),
                "left the kernel without a cluster barrier", "an arrival that nobody waits for");
  expect_report(report_clusters(one_arrival, 2, {2}, {128}, 8, false, true, true),
                "before a cluster barrier has shown it", "a barrier not shown to the other block");
  expect_report(report_clusters(half_a_cluster_barrier, 2, {2}, {128}, 0), "divergent barrier",
                "half a cluster barrier");
  expect_report(report_clusters(half_a_cluster_barrier, 2, {3}, {128}, 0), "not a multiple",
                "half a cluster");
  if (!suder::emulator::race_log::enabled()) return;
  std::vector<float> x(256);
  expect_report(report_clusters(static_array_in_a_cluster, 2, {2}, {128}, 0, x.data()), "race",
                "a static array, which the emulator has once a cluster");
}

}  // namespace

void test_clusters() {
  test_features();
  test_planted_bugs();
}
