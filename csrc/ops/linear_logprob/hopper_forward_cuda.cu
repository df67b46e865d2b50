// The fused forward by wgmma and TMA, for sm_90a.
#include <stdexcept>

#include "cuda/wgmma_halves.cuh"
#include "ops/linear_logprob/forward_block.cuh"

namespace suder::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(WgmmaHalves<T>::kThreads, 1)
    hopper_forward_kernel(const __grid_constant__ ForwardArguments<WgmmaOperands> a) {
#if SUDER_WGMMA
  forward_block<WgmmaHalves<T>>(a);
#else
  __trap();  // another card's machine code: hopper_forward does not come here
#endif
}

template <typename T>
void run(const FusedForward& p, Stream stream) {
  static_assert(kForwardShared<WgmmaHalves<T>> <= 232448, "more than a block has on sm_90");
  run_forward<WgmmaHalves<T>, T>(hopper_forward_kernel<T>, p, stream);
}

}  // namespace

bool hopper_compiled() {
#ifdef SUDER_HOPPER
  return true;
#else
  return false;
#endif
}

void hopper_forward(const FusedForward& p, Stream stream) {
  if (!hopper_compiled()) throw std::runtime_error("hopper_forward: not compiled for sm_90a");
  dispatch_operands(p.dtype, [&]<typename T>() { run<T>(p, stream); });
}

}  // namespace suder::cuda
