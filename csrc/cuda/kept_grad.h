// Entry point of the backward's first half where the forward kept exponentials: the gradient of the
// logits without their products. All pointers are device memory.
#pragma once

#include <cstdint>

#include "cuda/kept_exps.h"
#include "suder/types.h"

namespace suder::cuda {

using Stream = std::uintptr_t;  // a cudaStream_t; 0 is the default stream

struct KeptGrad {
  DType dtype = DType::kBFloat16;  // of the gradient: bfloat16 or float16
  // What the forward kept; of its tokens those from first_token on, N in all, and their columns
  // from first_column on, C in all. The vectors below are of the N tokens.
  KeptExps kept;
  std::int64_t first_token = 0, tokens = 0;
  std::int64_t first_column = 0, cols = 0;  // first_column: a multiple of 8
  std::int64_t vocab = 0;                   // columns in all
  const std::int64_t* target = nullptr;     // counted in all columns
  std::int64_t ignore_index = -100;
  float temperature = 1.0f;
  float softcap = 0.0f;  // 0: none
  const float* lse = nullptr;
  const float* entropy = nullptr;       // needed with grad_entropy
  const float* grad_logprob = nullptr;  // each may be absent
  const float* grad_lse = nullptr;
  const float* grad_entropy = nullptr;
  // [N, C], of `dtype`; rows 16-byte aligned and a multiple of 8 elements apart, of which those
  // past C get values without a meaning. Or absent.
  Matrix grad;
  // [kept_grad_row_parts(N), grad.stride] sums of columns over some rows each, of the gradients
  // before they were rounded. Or absent.
  float* column_sums = nullptr;
};

std::int64_t kept_grad_row_parts(std::int64_t tokens);
void kept_grad(const KeptGrad& params, Stream stream);

}  // namespace suder::cuda
