// The arithmetic limit that benchmarks compare with: nothing but independent multiply-adds in
// registers, of the instruction that the kernels use for `dtype`.
#pragma once

#include "suder/types.h"

namespace suder::cpu {

// Runs for some milliseconds on each of `threads` threads; how many floating-point operations.
double fma_loop(DType dtype, int threads);

}  // namespace suder::cpu
