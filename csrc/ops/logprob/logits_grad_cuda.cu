// The gradient of logits, elementwise given the row's log-sum-exp and entropy:
//   dz = onehot * g_logprob + p (g_lse - g_logprob - g_entropy (log p + entropy))
// times the slope of softcap and temperature. The result may take the logits' place; in a narrower
// type it overwrites logits that another thread reads, hence the barrier between load and store:
// element c lies where logit c / 2 was, and all logits up to c have been loaded by then.
#include <stdexcept>
#include <type_traits>

#include "cuda/launch.cuh"
#include "cuda/logits.h"
#include "cuda/reduce.cuh"
#include "cuda/vec.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {
namespace {

constexpr int kThreads = 256;
// A float32 log-sum-exp of this size is off by at most 2e-6, and so is p. Above it a row that is
// here whole is read once more for what its probabilities add up to.
constexpr float kExactLse = 32.0f;

template <typename T, typename G>
struct GradArguments {
  const T* logits;  // no __restrict__: grad may be the same memory
  G* grad;
  std::int64_t cols, stride, grad_stride, tokens, first_column, vocab, ignore_index;
  const float* bias;
  const std::int64_t* target;
  bool aligned;
  FinalLogit final_logit;
  const float *lse, *entropy, *grad_logprob, *grad_lse, *grad_entropy;
};

// A row's factors: dz = (onehot * direct + p * (common + per_log_p * log p)) * slope.
struct RowFactors {
  float lse, direct, common, per_log_p;
  float correction;  // log of what the probabilities add up to when taken from lse
  std::int64_t target;
  bool zero;
};

template <typename T, typename G>
__device__ RowFactors row_factors(const GradArguments<T, G>& a, std::int64_t row) {
  RowFactors f = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, -1, true};
  if (row >= a.tokens || a.target[row] == a.ignore_index) return f;
  f.zero = false;
  f.lse = a.lse[row];
  f.target = a.target[row];
  if (a.grad_logprob != nullptr) f.direct = a.grad_logprob[row];
  // Nobody can say what the derivative is where the target does not exist.
  if (f.target < 0 || f.target >= a.vocab) f.direct *= NAN;
  f.common = -f.direct;
  if (a.grad_lse != nullptr) f.common += a.grad_lse[row];
  if (a.grad_entropy != nullptr) {
    f.per_log_p = -a.grad_entropy[row];
    f.common += f.per_log_p * a.entropy[row];
  }
  return f;
}

__device__ inline float derivative(const RowFactors& f, const FinalLogit& final_logit, float z,
                                   std::int64_t column) {
  const float capped = final_logit.capped(z);
  const float log_p = final_logit.log_p(capped, f.lse) - f.correction;
  const float p = expf(log_p);
  float dz = p == 0.0f ? 0.0f : p * (f.common + f.per_log_p * log_p);  // 0 * -inf is not 0
  if (column == f.target) dz += f.direct;
  return dz * final_logit.slope(capped);
}

// All threads of the block must call it.
template <typename T, typename G>
__device__ float lse_correction(const GradArguments<T, G>& a, const T* logits, float lse) {
  __shared__ float shared[kThreads / kWarpSize];
  float sum = 0.0f;
  for (std::int64_t column = threadIdx.x * kPack<T>; column < a.cols;
       column += kThreads * kPack<T>) {
    float z[kPack<T>];
    load_pack(logits, column, a.cols, a.aligned, -INFINITY, z);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (column + i >= a.cols) continue;
      if (a.bias != nullptr) z[i] += a.bias[column + i];
      sum += expf(a.final_logit.log_p(a.final_logit.capped(z[i]), lse));
    }
  }
  return logf(reduce_block(sum, shared));
}

template <typename T, typename G>
__global__ void __launch_bounds__(kThreads) logits_grad_kernel(GradArguments<T, G> a) {
  const std::int64_t row = blockIdx.x;
  RowFactors factors = row_factors(a, row);
  const T* logits = a.logits + row * a.stride;
  G* grad = a.grad + row * a.grad_stride;
  const bool whole = a.cols == a.vocab;
  if (whole && !factors.zero && fabsf(factors.lse) > kExactLse) {  // the whole block or nobody
    factors.correction = lse_correction(a, logits, factors.lse);
  }
  // The same number of rounds for all threads: there is a barrier inside.
  for (std::int64_t round = 0; round < a.cols; round += kThreads * kPack<T>) {
    const std::int64_t column = round + threadIdx.x * kPack<T>;
    float z[kPack<T>];
    if (!factors.zero && column < a.cols) load_pack(logits, column, a.cols, a.aligned, 0.0f, z);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (factors.zero) {
        z[i] = 0.0f;
      } else if (column + i < a.cols) {
        if (a.bias != nullptr) z[i] += a.bias[column + i];
        z[i] = derivative(factors, a.final_logit, z[i], a.first_column + column + i);
      }
    }
    if constexpr (sizeof(G) < sizeof(T)) __syncthreads();
    if (column < a.cols) store_pack(grad, column, a.cols, a.aligned, z);
  }
}

template <typename T, typename G>
void run(const LogitsGrad& p, Stream stream) {
  const GradArguments<T, G> arguments = {static_cast<const T*>(p.logits.data),
                                         static_cast<G*>(p.grad.data),
                                         p.logits.cols,
                                         p.logits.stride,
                                         p.grad.stride,
                                         p.tokens,
                                         p.first_column,
                                         p.vocab,
                                         p.ignore_index,
                                         p.bias,
                                         p.target,
                                         aligned_rows<T>(p.logits.data, p.logits.stride) &&
                                             aligned_rows<G>(p.grad.data, p.grad.stride),
                                         FinalLogit(p.temperature, p.softcap),
                                         p.lse,
                                         p.entropy,
                                         p.grad_logprob,
                                         p.grad_lse,
                                         p.grad_entropy};
  launch(logits_grad_kernel<T, G>, {static_cast<unsigned>(p.logits.rows)}, {kThreads}, 0, stream,
         arguments);
}

}  // namespace

void logits_grad(const LogitsGrad& p, Stream stream) {
  if (p.logits.rows == 0 || p.logits.cols == 0) return;
  if (p.grad_entropy != nullptr && p.entropy == nullptr) {
    throw std::invalid_argument("logits_grad: grad_entropy needs the entropy");
  }
  if (p.dtype != p.grad_dtype && p.dtype != DType::kFloat32) {
    throw std::invalid_argument("logits_grad: 16-bit logits have gradients of their own dtype");
  }
  dispatch_dtype(p.grad_dtype, [&]<typename G>() {
    if (p.dtype == DType::kFloat32) {
      run<float, G>(p, stream);
    } else {
      run<G, G>(p, stream);
    }
  });
}

}  // namespace suder::cuda
