// The fused forward by mma.sync, for every card from sm_80 on; and the choice of the kernel.
#include <stdexcept>

#include "cuda/mma_mainloop.cuh"
#include "ops/linear_logprob/forward_block.cuh"

namespace suder::cuda {
namespace {

template <typename T, int kRing>
__global__ void __launch_bounds__(MmaMainloop<T, kRing>::kThreads, 1)
    fused_forward_kernel(const __grid_constant__ ForwardArguments<MmaOperands<T>> a) {
  forward_block<MmaMainloop<T, kRing>>(a);
}

template <typename T>
void run(const FusedForward& p, Stream stream) {
  dispatch_ring([&]<int kRing>() {
    using Mainloop = MmaMainloop<T, kRing>;
    static_assert(kForwardShared<Mainloop> <= kMostShared<kRing>);
    run_forward<Mainloop, T>(fused_forward_kernel<T, kRing>, p, stream);
  });
}

}  // namespace

std::int64_t fused_forward_workspace(std::int64_t tokens, std::int64_t vocab) {
  static_assert(sizeof(RowState) == 4 * sizeof(float));
  return splits_of(vocab).count * tokens * 4;
}

bool fused_forward_keeps(bool hopper) {
  bool keeps = hopper;
  dispatch_ring([&]<int kRing>() { keeps = keeps || MmaMainloop<__half, kRing>::kKeepsExps; });
  return keeps;
}

void fused_forward(const FusedForward& p, Stream stream) {
  if (p.hidden.rows == 0) return;
  if (p.weight.rows == 0 || p.hidden.cols == 0) {
    throw std::invalid_argument("fused_forward: no vocabulary or no features");
  }
  if (p.hopper) return hopper_forward(p, stream);
  dispatch_operands(p.dtype, [&]<typename T>() { run<T>(p, stream); });
}

}  // namespace suder::cuda
