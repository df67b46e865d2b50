// Thread-block clusters (sm_90 and newer): neighbouring blocks that run at the same time, reach one
// another's barriers (mbarrier.cuh) and share loads (tma.cuh). launch_clusters starts them.
#pragma once

#include <cuda_runtime.h>

namespace suder::cuda {

// This block's number within its cluster, from 0.
__device__ inline int cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return static_cast<int>(rank);
}

// Waits for all threads of the cluster. Needed before a block's barriers are used by its peers, and
// before a block leaves the kernel: its shared memory must be there for as long as peers reach it.
__device__ inline void sync_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;\n" ::
          : "memory");
}

}  // namespace suder::cuda
