// The fused backward by wgmma and TMA, for sm_90a.
#include <stdexcept>

#include "cuda/fused_forward.h"
#include "cuda/wgmma_mainloop.cuh"
#include "ops/linear_logprob/grad_block.cuh"

namespace suder::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(WgmmaMainloop<T>::kThreads, 1)
    hopper_grad_kernel(const __grid_constant__ FusedGradArguments<WgmmaOperands, T> a) {
#if SUDER_WGMMA
  grad_block<WgmmaMainloop<T>, T>(a);
#else
  __trap();  // another card's machine code: hopper_grad does not come here
#endif
}

template <typename T>
void run(const FusedGrad& p, Stream stream) {
  static_assert(kGradShared<WgmmaMainloop<T>> <= 232448, "more than a block has on sm_90");
  run_grad<WgmmaMainloop<T>, T>(hopper_grad_kernel<T>, p, stream);
}

}  // namespace

std::int64_t hopper_grad_row_parts(std::int64_t tokens) {
  return grad_row_parts<WgmmaMainloop<__half>>(tokens);
}

void hopper_grad(const FusedGrad& p, Stream stream) {
  if (!hopper_compiled()) throw std::runtime_error("hopper_grad: not compiled for sm_90a");
  dispatch_operands(p.dtype, [&]<typename T>() { run<T>(p, stream); });
}

}  // namespace suder::cuda
