// From a row's final state to the results, and the merge of a row's parts in their order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/reduce.cuh"

namespace suder::cuda {

struct RowResults {
  const std::int64_t* target;
  std::int64_t ignore_index;
  float* logprob;
  float* lse;
  float* entropy;  // or absent
  float inverse_temperature;
  float* kept_logprob = nullptr;  // of the first kept_tokens rows, once more
  std::int64_t kept_tokens = 0;

  // Ignored rows give 0, whatever they hold. A target outside the vocabulary was never met: its
  // logit is NaN, and so is its log-probability.
  __device__ void write(std::int64_t row, const RowState& state) const {
    const bool ignored = target[row] == ignore_index;
    const float value =
        ignored ? 0.0f : log_probability(state.target, state.lse, inverse_temperature);
    logprob[row] = value;
    if (row < kept_tokens) kept_logprob[row] = value;
    lse[row] = ignored ? 0.0f : suder::lse(state.lse, inverse_temperature);
    if (entropy != nullptr) entropy[row] = ignored ? 0.0f : suder::entropy(state.lse);
  }
};

struct RowParts {
  const RowState* state;  // [parts, rows]
  std::int64_t parts, rows;
};
void merge_row_states(const RowParts& parts, const RowResults& results, std::uintptr_t stream);

}  // namespace suder::cuda
