// The fused backward by mma.sync, for every card from sm_80 on; and the choice of the kernel.
#include <stdexcept>

#include "cuda/mma_mainloop.cuh"
#include "ops/linear_logprob/grad_block.cuh"

namespace suder::cuda {
namespace {

template <typename T, int kRing>
__global__ void __launch_bounds__(MmaMainloop<T, kRing>::kThreads, 1)
    fused_grad_kernel(const __grid_constant__ FusedGradArguments<MmaOperands<T>, T> a) {
  grad_block<MmaMainloop<T, kRing>, T>(a);
}

template <typename T>
void run(const FusedGrad& p, Stream stream) {
  dispatch_ring([&]<int kRing>() {
    using Mainloop = MmaMainloop<T, kRing>;
    static_assert(kGradShared<Mainloop> <= kMostShared<kRing>);
    run_grad<Mainloop, T>(fused_grad_kernel<T, kRing>, p, stream);
  });
}

}  // namespace

std::int64_t fused_grad_row_parts(std::int64_t tokens, bool hopper) {
  return hopper ? hopper_grad_row_parts(tokens)
                : grad_row_parts<MmaMainloop<__half, kShallowRing>>(tokens);
}

void fused_grad(const FusedGrad& p, Stream stream) {
  if (p.hidden.rows == 0 || p.weight.rows == 0) return;
  if (p.hidden.cols == 0) throw std::invalid_argument("fused_grad: no features");
  if (p.grad_entropy != nullptr && p.entropy == nullptr) {
    throw std::invalid_argument("fused_grad: grad_entropy needs the entropy");
  }
  if (p.hopper) return hopper_grad(p, stream);
  dispatch_operands(p.dtype, [&]<typename T>() { run<T>(p, stream); });
}

}  // namespace suder::cuda
