// The arithmetic limit that benchmarks compare with: nothing but independent multiply-adds in
// registers, on the instruction that the kernels use for `dtype`.
#pragma once

#include "suder/types.h"

namespace suder::cpu {

// Floating-point operations per second of `threads` threads together over about `seconds`.
double fma_peak(DType dtype, int threads, double seconds);

}  // namespace suder::cpu
