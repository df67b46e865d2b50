// Entry points of the kernels that read logits by rows: the whole of logprob, and the part of
// linear_logprob that is not a matrix product. All pointers are device memory, all calls return
// before the device has done the work.
#pragma once

#include <cstdint>

#include "suder/types.h"

namespace suder::cuda {

using Stream = std::uintptr_t;  // a cudaStream_t; 0 is the default stream

// Columns [first_column, first_column + logits.cols) of the logits of `logits.rows` tokens. Of
// these only the first `tokens` rows are real; a tile's height is fixed and the rest is padding.
struct LogitsTile {
  DType dtype = DType::kFloat32;
  ConstMatrix logits;
  std::int64_t tokens = 0;
  std::int64_t first_column = 0;
  const float* bias = nullptr;           // [cols] of these columns, or absent
  const std::int64_t* target = nullptr;  // [tokens], counted in all columns
  std::int64_t vocab = 0;                // all columns
  std::int64_t ignore_index = -100;
  float temperature = 1.0f;
  float softcap = 0.0f;  // 0: none
};

// One row's state between tiles (max, sum, weighted sum, target logit): see cuda/reduce.cuh.
inline constexpr std::int64_t kStateFloats = 4;

struct LogitsStats : LogitsTile {
  float* state = nullptr;  // [splits, tokens, kStateFloats]; absent if one launch does it all
  bool first = true;       // false: continue from `state`
  bool last = true;        // true: write the results
  float* logprob = nullptr;
  float* lse = nullptr;
  float* entropy = nullptr;  // or absent
};

// Into how many parts a row of a whole logits matrix is cut: a function of the width alone, so that
// a row gets the same bits in any batch. `state` is needed where it is above 1.
std::int64_t logits_splits(std::int64_t vocab);
void logits_stats(const LogitsStats& params, Stream stream);

// The gradient of the tile's logits (of the product, before bias, softcap and temperature), zero in
// ignored and padding rows. It may lie in the memory of the logits, in the same or a narrower
// dtype.
struct LogitsGrad : LogitsTile {
  DType grad_dtype = DType::kFloat32;
  Matrix grad;
  const float* lse = nullptr;
  const float* entropy = nullptr;       // needed with grad_entropy
  const float* grad_logprob = nullptr;  // each may be absent
  const float* grad_lse = nullptr;
  const float* grad_entropy = nullptr;
};
void logits_grad(const LogitsGrad& params, Stream stream);

// sums[c] += the sum of column c, over rows in order.
struct ColumnSum {
  DType dtype = DType::kFloat32;
  ConstMatrix values;
  float* sums = nullptr;
};
void column_sum(const ColumnSum& params, Stream stream);

}  // namespace suder::cuda
