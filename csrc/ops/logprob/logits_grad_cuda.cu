// The gradient of logits (logit_derivative.cuh), row by row; a thread has several loads of 16 bytes
// under way. It may take the logits' place; in a narrower type it overwrites logits that another
// thread reads, hence the barrier between loads and stores: element c lies where logit c / 2 was,
// and all logits up to c have been loaded by then.
#include <stdexcept>
#include <type_traits>

#include "cuda/launch.cuh"
#include "cuda/logits.h"
#include "cuda/reduce.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/vec.cuh"
#include "ops/logprob/final_logit.cuh"
#include "ops/logprob/logit_derivative.cuh"

namespace suder::cuda {
namespace {

constexpr int kMostThreads = 256, kPacks = 4;
constexpr float kLog2E = 1.44269504f;
// A float32 log-sum-exp of this size is off by at most 2e-6, and so is p. Above it a row that is
// here whole is read once more for what its probabilities add up to.
constexpr float kExactLse = 32.0f;

template <typename T, typename G>
struct GradArguments {
  const T* logits;  // no __restrict__: grad may be the same memory
  G* grad;
  std::int64_t cols, stride, grad_stride, first_column;
  const float* bias;
  bool aligned;
  FinalLogit final_logit;
  RowGradients rows;
};

// All threads of the block must call it.
template <typename T, typename G>
__device__ float lse_correction(const GradArguments<T, G>& a, const T* logits, float lse) {
  __shared__ float shared[kMostThreads / kWarpSize];
  float sum = 0.0f;
  const std::int64_t step = std::int64_t{blockDim.x} * kPack<T>;
  for (std::int64_t column = threadIdx.x * kPack<T>; column < a.cols; column += step) {
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

// From the products of one pack, of which `left` lie within the row, to their gradients, in place.
template <typename T, typename G>
__device__ void differentiate(const GradArguments<T, G>& a, const RowFactors& f, float correction,
                              std::int64_t column, int left, float (&z)[kPack<T>]) {
  const std::int64_t there = f.target - a.first_column - column;
  const int target = there >= 0 && there < kPack<T> ? static_cast<int>(there) : -1;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    if (a.bias != nullptr) z[i] += i < left ? a.bias[column + i] : 0.0f;
    const float capped = a.final_logit.capped(z[i]);
    const float log_p = a.final_logit.log_p(capped, f.lse) - correction;
    const float dz = derivative(f, log_p, exp2_approx(log_p * kLog2E), target == i);
    z[i] = dz * a.final_logit.slope(capped);
  }
}

template <typename T, typename G>
__global__ void __launch_bounds__(kMostThreads, 4) logits_grad_kernel(GradArguments<T, G> a) {
  const std::int64_t row = blockIdx.x;
  const RowFactors factors = a.rows.factors(row);
  const T* logits = a.logits + row * a.stride;
  G* grad = a.grad + row * a.grad_stride;
  float correction = 0.0f;  // log of what the probabilities add up to when taken from lse
  const bool whole = a.cols == a.rows.vocab;
  if (whole && !factors.zero && fabsf(factors.lse) > kExactLse) {  // the whole block or nobody
    correction = lse_correction(a, logits, factors.lse);
  }
  const std::int64_t step = std::int64_t{blockDim.x} * kPack<T>;
  // The same number of rounds for all threads: there is a barrier inside.
  for (std::int64_t round = 0; round < a.cols; round += kPacks * step) {
    const std::int64_t column = round + threadIdx.x * kPack<T>;
    uint4 raw[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const std::int64_t first = column + k * step;
      raw[k] = uint4{0, 0, 0, 0};
      if (factors.zero || first >= a.cols) continue;
      if (a.aligned && first + kPack<T> <= a.cols) {
        raw[k] = read_16(logits + first);
      } else {
        raw[k] = read_elements(logits, first, a.cols);
      }
    }
    if constexpr (sizeof(G) < sizeof(T)) __syncthreads();
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const std::int64_t first = column + k * step, left = a.cols - first;
      if (left <= 0) break;
      float z[kPack<T>];
      unpack<T>(raw[k], z);
      if (!factors.zero) {
        const int count = left < kPack<T> ? static_cast<int>(left) : kPack<T>;
        differentiate(a, factors, correction, first, count, z);
      }
      store_pack(grad, first, a.cols, a.aligned, z);
    }
  }
}

template <typename T, typename G>
void run(const LogitsGrad& p, Stream stream) {
  const GradArguments<T, G> arguments = {static_cast<const T*>(p.logits.data),
                                         static_cast<G*>(p.grad.data),
                                         p.logits.cols,
                                         p.logits.stride,
                                         p.grad.stride,
                                         p.first_column,
                                         p.bias,
                                         aligned_rows<T>(p.logits.data, p.logits.stride) &&
                                             aligned_rows<G>(p.grad.data, p.grad.stride),
                                         FinalLogit(p.temperature, p.softcap),
                                         {p.target, p.tokens, p.vocab, p.ignore_index, p.lse,
                                          p.entropy, p.grad_logprob, p.grad_lse, p.grad_entropy}};
  launch(logits_grad_kernel<T, G>, {static_cast<unsigned>(p.logits.rows)},
         {threads_for<T>(p.logits.cols, kPacks, kMostThreads)}, 0, stream, arguments);
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
