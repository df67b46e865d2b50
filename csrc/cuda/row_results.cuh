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

  // A target outside the vocabulary was never met: its state is NaN, and so is its logprob.
  __device__ void write(std::int64_t row, const RowState& state) const {
    const bool ignored = target[row] == ignore_index;
    logprob[row] = ignored ? 0.0f : log_probability(state.lse, state.target);
    lse[row] = suder::lse(state.lse);
    if (entropy != nullptr) entropy[row] = suder::entropy(state.lse);
  }
};

struct RowParts {
  const RowState* state;  // [parts, rows]
  std::int64_t parts, rows;
};
void merge_row_states(const RowParts& parts, const RowResults& results, std::uintptr_t stream);

}  // namespace suder::cuda
