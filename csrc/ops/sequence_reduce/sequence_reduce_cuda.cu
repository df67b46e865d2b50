#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/sequences.cuh"

namespace suder::cuda {
namespace {

__global__ void __launch_bounds__(kSequenceThreads)
    sequence_reduce_kernel(const __grid_constant__ SequenceReduceForward p) {
  const std::int64_t sequence = blockIdx.x;
  const TokenRange range = sequence_range(p.cu_seqlens, sequence, p.tokens);
  double sum = 0.0;
  std::int64_t count = 0;
  for (std::int64_t t = range.begin + threadIdx.x; t < range.end; t += kSequenceThreads) {
    if (p.target[t] == p.ignore_index) continue;
    sum += p.logprob[t];
    ++count;
  }
  sum = sum_block(sum);
  count = sum_block(count);
  if (threadIdx.x != 0) return;
  p.count[sequence] = count;
  const double value = p.mean ? sum / static_cast<double>(count) : sum;
  p.value[sequence] = count == 0 ? NAN : static_cast<float>(value);
}

__global__ void __launch_bounds__(kSequenceThreads)
    sequence_reduce_backward_kernel(const __grid_constant__ SequenceReduceBackward p) {
  const std::int64_t sequence = blockIdx.x;
  const TokenRange range = sequence_range(p.cu_seqlens, sequence, p.tokens);
  float grad = p.grad_value[sequence];
  const std::int64_t count = p.count[sequence];
  if (p.mean && count > 0) grad /= static_cast<float>(count);
  for (std::int64_t t = range.begin + threadIdx.x; t < range.end; t += kSequenceThreads) {
    p.grad_logprob[t] = p.target[t] == p.ignore_index ? 0.0f : grad;
  }
}

}  // namespace

void sequence_reduce_forward(const SequenceReduceForward& p, Stream stream) {
  if (p.sequences == 0) return;
  launch(sequence_reduce_kernel, {static_cast<unsigned>(p.sequences)}, {kSequenceThreads}, 0,
         stream, p);
}

void sequence_reduce_backward(const SequenceReduceBackward& p, Stream stream) {
  if (p.sequences == 0) return;
  launch(sequence_reduce_backward_kernel, {static_cast<unsigned>(p.sequences)}, {kSequenceThreads},
         0, stream, p);
}

}  // namespace suder::cuda
