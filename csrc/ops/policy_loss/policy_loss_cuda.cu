// One block a sequence writes every slope and its part of the loss; one block adds the parts.
// In float64, as on the CPU: old and new log-probabilities nearly cancel.
#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/sequences.cuh"

namespace suder::cuda {
namespace {

constexpr double kMaxLogRatio = 700.0;

// -min(ratio * advantage, clamp(ratio) * advantage) and its derivatives.
struct Surrogate {
  double value, log_ratio_slope, advantage_slope;
};

// Comparisons are written so that NaN takes the unclipped branch and stays NaN. A ratio that is too
// much for float32 stays finite here: times an advantage of 0 it is 0.
__device__ Surrogate surrogate(const PolicyLoss& p, double log_ratio, double advantage) {
  const double ratio = exp(log_ratio > kMaxLogRatio ? kMaxLogRatio : log_ratio);
  const double low = 1.0 - p.clip_low, high = 1.0 + p.clip_high;
  const double clipped = ratio < low ? low : ratio > high ? high : ratio;
  if (ratio * advantage > clipped * advantage) return {-clipped * advantage, 0.0, -clipped};
  return {-ratio * advantage, -ratio * advantage, -ratio};
}

__device__ std::int64_t longest_sequence(const PolicyLoss& p) {
  __shared__ std::int64_t shared[kSequenceThreads];
  std::int64_t longest = 1;
  for (std::int64_t i = threadIdx.x; i < p.sequences; i += kSequenceThreads) {
    const TokenRange range = sequence_range(p.cu_seqlens, i, p.tokens);
    const std::int64_t length = range.end - range.begin;
    longest = length > longest ? length : longest;
  }
  shared[threadIdx.x] = longest;
  __syncthreads();
  for (int i = 0; i < kSequenceThreads; ++i) longest = shared[i] > longest ? shared[i] : longest;
  return longest;
}

// Each token's part of the loss is its value times this.
__device__ double token_weight(const PolicyLoss& p, std::int64_t length) {
  if (p.reduction == PolicyReduction::kToken) return 1.0 / static_cast<double>(p.tokens);
  std::int64_t per = length;
  if (p.reduction == PolicyReduction::kConstant) {
    per = p.max_length > 0 ? p.max_length : longest_sequence(p);
  }
  return 1.0 / (static_cast<double>(p.sequences) * static_cast<double>(per));
}

__device__ Surrogate token_surrogates(const PolicyLoss& p, TokenRange range, double weight,
                                      double advantage) {
  Surrogate sum = {0.0, 0.0, 0.0};
  for (std::int64_t t = range.begin + threadIdx.x; t < range.end; t += kSequenceThreads) {
    const double log_ratio = static_cast<double>(p.logprob[t]) - p.old_logprob[t];
    const Surrogate s = surrogate(p, log_ratio, advantage);
    sum.value += s.value;
    sum.advantage_slope += s.advantage_slope;
    p.ratio_slope[t] = static_cast<float>(weight * s.log_ratio_slope);
  }
  return {sum_block(sum.value), 0.0, sum_block(sum.advantage_slope)};
}

__device__ Surrogate sequence_surrogate(const PolicyLoss& p, TokenRange range, double weight,
                                        double advantage) {
  double log_ratio = 0.0;
  for (std::int64_t t = range.begin + threadIdx.x; t < range.end; t += kSequenceThreads) {
    log_ratio += static_cast<double>(p.logprob[t]) - p.old_logprob[t];
  }
  const double length = static_cast<double>(range.end - range.begin);
  const Surrogate s = surrogate(p, sum_block(log_ratio) / length, advantage);
  for (std::int64_t t = range.begin + threadIdx.x; t < range.end; t += kSequenceThreads) {
    p.ratio_slope[t] = static_cast<float>(weight * s.log_ratio_slope);
  }
  return {length * s.value, 0.0, length * s.advantage_slope};
}

// exp(d) - 1 - d, which nearly cancels where d is small.
__device__ double rest_of_exp(double d) {
  return fabs(d) < 1e-5 ? d * d * (0.5 + d / 6.0) : expm1(d) - d;
}

// The KL estimate k3 (Schulman, "Approximating KL divergence", 2020) of one sequence.
__device__ double add_kl(const PolicyLoss& p, TokenRange range, double weight) {
  double sum = 0.0;
  for (std::int64_t t = range.begin + threadIdx.x; t < range.end; t += kSequenceThreads) {
    const double d = static_cast<double>(p.ref_logprob[t]) - p.logprob[t];
    sum += rest_of_exp(d);
    p.kl_slope[t] = static_cast<float>(-weight * p.kl_coef * expm1(d));
  }
  return p.kl_coef * sum_block(sum);
}

__global__ void __launch_bounds__(kSequenceThreads)
    policy_loss_kernel(const __grid_constant__ PolicyLoss p, double* totals) {
  const std::int64_t sequence = blockIdx.x;
  const TokenRange range = sequence_range(p.cu_seqlens, sequence, p.tokens);
  if (range.begin == range.end) {  // the whole block
    if (threadIdx.x == 0) p.advantage_slope[sequence] = 0.0f;
    if (threadIdx.x == 0) totals[sequence] = 0.0;
    return;
  }
  const double weight = token_weight(p, range.end - range.begin);
  const double advantage = p.advantage[sequence];
  const Surrogate s = p.level == PolicyLevel::kSequence
                          ? sequence_surrogate(p, range, weight, advantage)
                          : token_surrogates(p, range, weight, advantage);
  const double value = s.value + (p.ref_logprob != nullptr ? add_kl(p, range, weight) : 0.0);
  if (threadIdx.x != 0) return;
  p.advantage_slope[sequence] = static_cast<float>(weight * s.advantage_slope);
  totals[sequence] = weight * value;
}

__global__ void __launch_bounds__(kSequenceThreads)
    total_kernel(const double* totals, std::int64_t sequences, float* loss) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < sequences; i += kSequenceThreads) sum += totals[i];
  sum = sum_block(sum);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum);
}

}  // namespace

void policy_loss(const PolicyLoss& p, double* totals, Stream stream) {
  if (p.sequences > 0) {
    launch(policy_loss_kernel, {static_cast<unsigned>(p.sequences)}, {kSequenceThreads}, 0, stream,
           p, totals);
  }
  launch(total_kernel, {1}, {kSequenceThreads}, 0, stream, totals, p.sequences, p.loss);
}

}  // namespace suder::cuda
