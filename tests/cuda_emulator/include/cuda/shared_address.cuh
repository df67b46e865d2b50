// Stands in for csrc/cuda/shared_address.cuh.
#pragma once

#include <cuda_runtime.h>

namespace suder::cuda {

using suder::emulator::shared_address;

}  // namespace suder::cuda
