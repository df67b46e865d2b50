// The gradient of the logits from what the forward kept (kept_exps.h). One read and one write of 16
// bits for each: a thread has eight columns and goes down the rows of its block, several of them
// under way, which also adds up the columns.
#include <stdexcept>

#include "cuda/kept_grad.h"
#include "cuda/launch.cuh"
#include "cuda/tensor_core.cuh"
#include "cuda/vec.cuh"
#include "ops/linear_logprob/block_parts.cuh"
#include "ops/linear_logprob/kept_epilogue.cuh"
#include "ops/logprob/final_logit.cuh"
#include "ops/logprob/logit_derivative.cuh"

namespace suder::cuda {
namespace {

constexpr int kThreads = 128, kRows = 32, kAhead = 4, kColumns = 8;
constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f, kLog2Scale = 15.0f;

template <typename T>
struct KeptGradArguments {
  KeptExps kept;
  FinalLogit final_logit;
  float temperature;
  RowGradients rows;
  std::int64_t first_token, first_column, cols, stride;
  T* grad;             // or absent
  float* column_sums;  // or absent
};

// What a block knows of a row. The target's gradient is made of its own log p: of an improbable one
// nothing may have been kept, and the slope of a softcap is asked for all the same.
struct KeptRow {
  RowFactors factors;
  float target_gradient;
  int target;  // counted from the block's first column, -1 where it is in none of its columns
};

template <typename T>
__device__ float target_gradient(const KeptGradArguments<T>& a, const RowFactors& f, float log_p) {
  const float p = expf(log_p), common = f.common + f.direct;
  const float rest = p == 0.0f ? 0.0f : p * (common + f.per_log_p * log_p);  // 0 * -inf is not 0
  const float dz = rest - f.direct * expm1f(log_p), cap = a.final_logit.softcap;
  if (cap == 0.0f) return dz * a.final_logit.inverse_temperature;
  const float z = (log_p + f.lse) * a.temperature;
  return dz * a.final_logit.slope(fminf(fmaxf(z, -cap), cap));
}

template <typename T>
__device__ KeptRow kept_row(const KeptGradArguments<T>& a, std::int64_t row,
                            std::int64_t block_column) {
  KeptRow r = {a.rows.factors(row), 0.0f, -1};
  const std::int64_t target = r.factors.target - a.first_column, there = target - block_column;
  if (r.factors.zero || target >= a.cols || there < 0 || there >= kThreads * kColumns) return r;
  r.target = static_cast<int>(there);
  r.target_gradient = target_gradient(a, r.factors, a.kept.logprob[a.first_token + row]);
  return r;
}

// From the exponentials of eight columns to their gradients, in place; `max` is what they are
// relative to, `column` their first, counted from the block's first.
template <bool kLogs, typename T>
__device__ void differentiate(const KeptGradArguments<T>& a, const KeptRow& r, float max,
                              int column, float (&e)[kColumns]) {
  const RowFactors& f = r.factors;
  const float log_scale = a.final_logit.log_p(max, f.lse);  // one rounding: see log_p
  const float scale = exp2_approx(fmaf(log_scale, kLog2E, -kLog2Scale));
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const float p = e[i] * scale;
    if constexpr (kLogs) {
      const float log_e = (log2f(e[i]) - kLog2Scale) * kLn2;
      const float dz = derivative(f, log_scale + log_e, p, false);
      const float z = fmaxf(fmaf(log_e, a.temperature, max), -a.final_logit.softcap);
      e[i] = p == 0.0f || f.zero ? 0.0f : dz * a.final_logit.slope(z);  // 0 * inf is not 0
    } else {
      e[i] = derivative(f, 0.0f, p, false) * a.final_logit.inverse_temperature;
    }
  }
  const int target = r.target - column;
  if (target < 0 || target >= kColumns) return;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) e[i] = i == target ? r.target_gradient : e[i];
}

template <typename T>
__device__ void store(T* grad, const float (&values)[kColumns]) {
  std::uint32_t words[kColumns / 2];
  T rounded[kColumns];
#pragma unroll
  for (int i = 0; i < kColumns; ++i) rounded[i] = from_float<T>(values[i]);
  std::memcpy(words, rounded, sizeof(words));
  store_16(grad, words);
}

// kLogs: log p of every column is asked for, by a softcap or by the entropy.
template <typename T, bool kLogs>
__global__ void __launch_bounds__(kThreads) kept_grad_kernel(KeptGradArguments<T> a) {
  __shared__ KeptRow rows[kRows];
  const std::int64_t block_column = std::int64_t{blockIdx.x} * kThreads * kColumns;
  const std::int64_t first_row = std::int64_t{blockIdx.y} * kRows;
  if (threadIdx.x < kRows) rows[threadIdx.x] = kept_row(a, first_row + threadIdx.x, block_column);
  __syncthreads();
  const int own_column = static_cast<int>(threadIdx.x) * kColumns;
  const std::int64_t column = block_column + own_column;
  if (column >= a.cols) return;
  const std::int64_t kept_column = a.first_column + column;
  const auto* exps = static_cast<const __half*>(a.kept.exps) + kept_column;
  const float* maxima = a.kept.maxima + kept_column / kKeptColumns * a.kept.tokens;
  float sums[kColumns] = {};
#pragma unroll 1
  for (int first = 0; first < kRows; first += kAhead) {
    uint4 raw[kAhead];
    float max[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      raw[i] = uint4{0, 0, 0, 0};
      max[i] = 0.0f;
      if (rows[first + i].factors.zero) continue;
      const std::int64_t token = a.first_token + first_row + first + i;
      raw[i] = read_16(exps + token * a.kept.stride);
      max[i] = maxima[token];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const std::int64_t row = first_row + first + i;
      if (row >= a.rows.tokens) break;
      float e[kColumns];
      unpack<__half>(raw[i], e);
      differentiate<kLogs>(a, rows[first + i], max[i], own_column, e);
#pragma unroll
      for (int k = 0; k < kColumns; ++k) sums[k] += e[k];
      if (a.grad != nullptr) store(a.grad + row * a.stride + column, e);
    }
  }
  if (a.column_sums == nullptr) return;
  float* place = a.column_sums + blockIdx.y * a.stride + column;
#pragma unroll
  for (int k = 0; k < kColumns; k += 4) {
    *reinterpret_cast<float4*>(place + k) = {sums[k], sums[k + 1], sums[k + 2], sums[k + 3]};
  }
}

template <typename T>
void run(const KeptGrad& p, Stream stream) {
  if (p.first_column % kColumns != 0 || !aligned_rows<T>(p.grad.data, p.grad.stride)) {
    throw std::invalid_argument("kept_grad: columns and rows must be 16-byte aligned");
  }
  const KeptGradArguments<T> arguments = {p.kept,
                                          FinalLogit(p.temperature, p.softcap),
                                          p.temperature,
                                          {p.target, p.tokens, p.vocab, p.ignore_index, p.lse,
                                           p.entropy, p.grad_logprob, p.grad_lse, p.grad_entropy},
                                          p.first_token,
                                          p.first_column,
                                          p.cols,
                                          p.grad.stride,
                                          static_cast<T*>(p.grad.data),
                                          p.column_sums};
  const std::int64_t columns = kThreads * kColumns;
  const dim3 grid = {static_cast<unsigned>((p.cols + columns - 1) / columns),
                     static_cast<unsigned>(kept_grad_row_parts(p.tokens))};
  const bool logs = p.softcap > 0.0f || p.grad_entropy != nullptr;
  launch(logs ? kept_grad_kernel<T, true> : kept_grad_kernel<T, false>, grid, {kThreads}, 0, stream,
         arguments);
}

}  // namespace

std::int64_t kept_grad_row_parts(std::int64_t tokens) { return (tokens + kRows - 1) / kRows; }

void kept_grad(const KeptGrad& p, Stream stream) {
  if (p.tokens == 0 || p.cols == 0) return;
  if (p.first_token + p.tokens > p.kept.tokens) {
    throw std::invalid_argument("kept_grad: not all of the tokens were kept");
  }
  if (p.grad_entropy != nullptr && p.entropy == nullptr) {
    throw std::invalid_argument("kept_grad: grad_entropy needs the entropy");
  }
  dispatch_operands(p.dtype, [&]<typename T>() { run<T>(p, stream); });
}

}  // namespace suder::cuda
