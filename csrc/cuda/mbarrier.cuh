// Barriers in shared memory that count arrivals and bytes (sm_90 and newer). A barrier's phases are
// numbered from 0; a wait names the parity of the phase that must be over. Waiting for parity 1
// on a fresh barrier returns at once: the phase before the first counts as over.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/shared_address.cuh"

namespace suder::cuda {

// One thread makes a barrier; others may use it after mbarrier_fence_init and a __syncthreads,
// those of other blocks after a sync_cluster.
__device__ inline void mbarrier_init(std::uint64_t* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
// Shows new barriers to the copy engine too.
__device__ inline void mbarrier_fence_init() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

__device__ inline void mbarrier_arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier))
               : "memory");
}
// Arrives at the barrier in the same place of another block of the cluster, or of this one.
//
// It says that a stage has been read, and releases no writes to the other block: with
// .release.cluster it would, and each arrival would wait for a fence of the whole GPU.
__device__ inline void mbarrier_arrive_at(std::uint64_t* barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}
// Arrives, and lets the phase end only after so many more bytes have been copied.
__device__ inline void mbarrier_arrive_expect(std::uint64_t* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// What the copy engine brought is there then, whichever block asked for it. What threads of other
// blocks wrote need not be: waiting for that, too, empties the L1 cache, each time.
__device__ inline void mbarrier_wait(std::uint64_t* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace suder::cuda
