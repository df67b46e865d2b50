// The gradients of both sides' logits, row by row, in their place:
//   dz = g p (log p - log q - kl),  dy = g (q - p)
// times the slope of softcap and temperature. Where kl is infinite there is none: NaN.
#include "common/online_kl.h"
#include "cuda/launch.cuh"
#include "cuda/tensor_core.cuh"
#include "ops/linear_kl/kl_pair.cuh"

namespace suder::cuda {
namespace {

constexpr int kMostThreads = 256, kPacks = 4;
constexpr float kLog2E = 1.44269504f;

struct GradArguments {
  KlPairs pairs;
  float* grad;  // the logits' own memory, or absent
  float* ref_grad;
  std::int64_t tokens;
  const std::int64_t* target;
  std::int64_t ignore_index;
  const float* grad_kl;
  const float* kl;
  const float* state;
};

// What both gradients of a row are made from.
struct RowTerms {
  float grad, kl, max, log_sum, ref_max, ref_log_sum;
};

// In place: final logits become gradients.
__device__ void differentiate(const RowTerms& t, const FinalLogit& final_logit, float (&z)[kKlPack],
                              float (&y)[kKlPack]) {
#pragma unroll
  for (int i = 0; i < kKlPack; ++i) {
    const float log_p = (z[i] - t.max) * final_logit.inverse_temperature - t.log_sum;
    const float log_q = (y[i] - t.ref_max) * final_logit.inverse_temperature - t.ref_log_sum;
    const float p = exp2_approx(log_p * kLog2E), q = exp2_approx(log_q * kLog2E);
    const float ratio = bounded(log_p) - bounded(log_q);
    z[i] = t.grad * p * (ratio - t.kl) * final_logit.slope(z[i]);
    y[i] = t.grad * (q - p) * final_logit.slope(y[i]);
  }
}

__global__ void __launch_bounds__(kMostThreads, 4) kl_grad_kernel(GradArguments a) {
  const std::int64_t row = blockIdx.x, cols = a.pairs.cols;
  const bool zero = row >= a.tokens || a.target[row] == a.ignore_index;
  RowTerms t = {};
  if (!zero) {
    const float* state = a.state + row * kKlStateFloats;
    const float kl = a.kl[row];
    t = {isfinite(kl) ? a.grad_kl[row] : NAN, kl, state[0], state[1], state[2], state[3]};
  }
  const std::int64_t step = std::int64_t{blockDim.x} * kKlPack;
  for (std::int64_t column = threadIdx.x * kKlPack; column < cols; column += step) {
    float z[kKlPack] = {}, y[kKlPack] = {};
    if (!zero) {
      a.pairs.load(row, column, z, y);
      differentiate(t, a.pairs.final_logit, z, y);
    }
    if (a.grad != nullptr)
      store_pack(a.grad + row * a.pairs.stride, column, cols, a.pairs.aligned, z);
    if (a.ref_grad != nullptr)
      store_pack(a.ref_grad + row * a.pairs.ref_stride, column, cols, a.pairs.aligned, y);
  }
}

}  // namespace

void kl_grad(const KlGrad& p, Stream stream) {
  if (p.rows == 0 || p.cols == 0) return;
  const GradArguments arguments = {KlPairs(p),
                                   p.need_policy ? p.logits : nullptr,
                                   p.need_reference ? p.ref_logits : nullptr,
                                   p.tokens,
                                   p.target,
                                   p.ignore_index,
                                   p.grad_kl,
                                   p.kl,
                                   p.state};
  launch(kl_grad_kernel, {static_cast<unsigned>(p.rows)},
         {threads_for<float>(p.cols, kPacks, kMostThreads)}, 0, stream, arguments);
}

}  // namespace suder::cuda
