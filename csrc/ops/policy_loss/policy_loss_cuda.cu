// One block a sequence writes every slope and its part of the loss; one block adds the parts.
#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/sequences.cuh"
#include "ops/policy_loss/one_sequence.h"

namespace suder::cuda {
namespace {

struct Block {
  __device__ std::int64_t first() const { return threadIdx.x; }
  __device__ std::int64_t step() const { return kSequenceThreads; }
  __device__ double sum(double value) const { return sum_block(value); }
};

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

// Five blocks a multiprocessor: left alone, ptxas makes room for more and spills.
__global__ void __launch_bounds__(kSequenceThreads, 5)
    policy_loss_kernel(const __grid_constant__ PolicyLoss p, PolicyTotals* totals) {
  const std::int64_t i = blockIdx.x;
  const TokenRange range = sequence_range(p.cu_seqlens, i, p.tokens);
  PolicyTotals sums;
  if (range.begin < range.end) {  // the whole block
    std::int64_t longest = p.max_length;
    if (p.reduction == PolicyReduction::kConstant && longest <= 0) longest = longest_sequence(p);
    const double scale = policy::scale_of(p, range.end - range.begin, longest);
    sums = policy::one_sequence(p, {i, range.begin, range.end, scale}, Block());
  } else if (threadIdx.x == 0 && !p.advantage_per_token) {
    p.advantage_slope[i] = 0.0f;
  }
  if (threadIdx.x == 0) totals[i] = sums;
}

__global__ void __launch_bounds__(kSequenceThreads)
    total_kernel(const __grid_constant__ PolicyLoss p, const PolicyTotals* totals) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < p.sequences; i += kSequenceThreads) sum += totals[i].loss;
  sum = sum_block(sum);
  if (threadIdx.x == 0) *p.loss = static_cast<float>(sum);
  if (p.metrics == nullptr) return;
  std::int64_t filled = 0;
  for (std::int64_t i = threadIdx.x; i < p.sequences; i += kSequenceThreads) {
    const TokenRange range = sequence_range(p.cu_seqlens, i, p.tokens);
    filled += range.begin < range.end;
  }
  filled = sum_block(filled);
  for (int metric = 0; metric < 4; ++metric) {
    sum = 0.0;
    for (std::int64_t i = threadIdx.x; i < p.sequences; i += kSequenceThreads) {
      sum += totals[i].metrics[metric];
    }
    sum = sum_block(sum);
    if (threadIdx.x != 0) continue;
    p.metrics[metric] = static_cast<float>(sum / policy::metric_count(p, metric, filled));
  }
}

}  // namespace

void policy_loss(const PolicyLoss& p, double* totals, Stream stream) {
  PolicyTotals* room = reinterpret_cast<PolicyTotals*>(totals);
  if (p.sequences > 0) {
    launch(policy_loss_kernel, {static_cast<unsigned>(p.sequences)}, {kSequenceThreads}, 0, stream,
           p, room);
  }
  launch(total_kernel, {1}, {kSequenceThreads}, 0, stream, p, room);
}

}  // namespace suder::cuda
