// Sum or mean of the scored tokens of packed sequences.
#pragma once

#include <cstdint>

namespace suder {

struct SequenceReduce {
  std::int64_t tokens = 0;
  std::int64_t sequences = 0;
  const std::int64_t* cu_seqlens = nullptr;  // [B + 1], from 0 to tokens
  const std::int64_t* target = nullptr;      // [T]; tokens equal to ignore_index are not scored
  std::int64_t ignore_index = -100;
  bool mean = true;
  int threads = 1;
};

struct SequenceReduceForward : SequenceReduce {
  const float* logprob = nullptr;  // [T]
  float* value = nullptr;          // [B]; NaN where nothing is scored
  std::int64_t* count = nullptr;   // [B] scored tokens
};

struct SequenceReduceBackward : SequenceReduce {
  const float* grad_value = nullptr;    // [B]
  const std::int64_t* count = nullptr;  // [B], of the forward call
  float* grad_logprob = nullptr;        // [T]; 0 where not scored
};

// Throw std::invalid_argument if cu_seqlens is not sorted from 0 to tokens.
void sequence_reduce_forward(const SequenceReduceForward& params);
void sequence_reduce_backward(const SequenceReduceBackward& params);

}  // namespace suder
