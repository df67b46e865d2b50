// Stands in for csrc/cuda/cluster.cuh.
#pragma once

#include <cuda_runtime.h>

namespace suder::cuda {

inline int cluster_rank() { return static_cast<int>(suder::emulator::position().rank); }

inline void sync_cluster(suder::emulator::Site site = suder::emulator::Site::current()) {
  suder::emulator::sync_cluster(site);
}

}  // namespace suder::cuda
