// Stands in for csrc/cuda/mbarrier.cuh: the PTX manual's "mbarrier", kept by mbarriers.cc.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "mbarriers.h"

namespace suder::cuda {

using suder::emulator::Site;

inline void mbarrier_init(std::uint64_t* barrier, unsigned arrivals, Site site = Site::current()) {
  suder::emulator::mbarriers::init(barrier, arrivals, site);
}
inline void mbarrier_fence_init() {}
inline void mbarrier_arrive(std::uint64_t* barrier, Site site = Site::current()) {
  suder::emulator::mbarriers::arrive(barrier, site);
}
inline void mbarrier_arrive_at(std::uint64_t* barrier, int rank, Site site = Site::current()) {
  suder::emulator::mbarriers::arrive_at(barrier, static_cast<unsigned>(rank), site);
}
inline void mbarrier_arrive_expect(std::uint64_t* barrier, unsigned bytes,
                                   Site site = Site::current()) {
  suder::emulator::mbarriers::arrive_expect(barrier, bytes, site);
}
inline void mbarrier_wait(std::uint64_t* barrier, unsigned parity, Site site = Site::current()) {
  suder::emulator::mbarriers::wait(barrier, parity, site);
}

}  // namespace suder::cuda
