// Entry point of the fused backward's first half: the gradient of the logits of
// hidden @ weight^T + bias, from products that never leave the registers. What is left are two
// matrix products with it. All pointers are device memory.
#pragma once

#include <cstdint>

#include "suder/types.h"

namespace suder::cuda {

using Stream = std::uintptr_t;  // a cudaStream_t; 0 is the default stream

struct FusedGrad {
  DType dtype = DType::kBFloat16;  // bfloat16 or float16
  ConstMatrix hidden;              // [N, D], D a multiple of 8, rows 16-byte aligned
  // [C, D] likewise: the rows of the weight from first_column on.
  ConstMatrix weight;
  std::int64_t first_column = 0;
  std::int64_t vocab = 0;                // columns in all
  const void* bias = nullptr;            // [C] of these columns, or absent
  DType bias_dtype = DType::kFloat32;    // or `dtype`
  const std::int64_t* target = nullptr;  // [N], counted in all columns
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
  // [fused_grad_row_parts(N), grad.stride] sums of columns over some rows each, of the gradients
  // before they were rounded. Or absent.
  float* column_sums = nullptr;
  bool hopper = false;  // by wgmma: compute capability 9.0 only, where hopper_compiled()
};

std::int64_t fused_grad_row_parts(std::int64_t tokens, bool hopper);
void fused_grad(const FusedGrad& params, Stream stream);

std::int64_t hopper_grad_row_parts(std::int64_t tokens);
void hopper_grad(const FusedGrad& params, Stream stream);

}  // namespace suder::cuda
