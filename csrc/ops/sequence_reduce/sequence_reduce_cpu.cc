#include <cmath>

#include "common/dtype.h"
#include "cpu/parallel.h"
#include "suder/sequence_reduce.h"

namespace suder::SUDER_ISA {
namespace {

// Waking a thread costs more than reading this many tokens.
constexpr std::int64_t kTokensWorthAThread = 1 << 16;

template <class F>
void for_each_sequence(const SequenceReduce& p, F&& body) {
  const int threads = p.tokens < kTokensWorthAThread ? 1 : p.threads;
  cpu::parallel_for(threads, p.sequences, [&](std::int64_t sequence, int) {
    body(sequence, p.cu_seqlens[sequence], p.cu_seqlens[sequence + 1]);
  });
}

}  // namespace

void sequence_reduce_forward_cpu(const SequenceReduceForward& p) {
  for_each_sequence(p, [&](std::int64_t sequence, std::int64_t begin, std::int64_t end) {
    double sum = 0.0;
    std::int64_t count = 0;
    for (std::int64_t t = begin; t < end; ++t) {
      if (p.target[t] == p.ignore_index) continue;
      sum += p.logprob[t];
      ++count;
    }
    p.count[sequence] = count;
    p.value[sequence] = count == 0 ? NAN : static_cast<float>(p.mean ? sum / count : sum);
  });
}

void sequence_reduce_backward_cpu(const SequenceReduceBackward& p) {
  for_each_sequence(p, [&](std::int64_t sequence, std::int64_t begin, std::int64_t end) {
    const float grad = p.mean && p.count[sequence] > 0
                           ? p.grad_value[sequence] / static_cast<float>(p.count[sequence])
                           : p.grad_value[sequence];
    for (std::int64_t t = begin; t < end; ++t) {
      p.grad_logprob[t] = p.target[t] == p.ignore_index ? 0.0f : grad;
    }
  });
}

}  // namespace suder::SUDER_ISA
