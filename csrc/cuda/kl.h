// Entry points of the kernels that read the logits of two heads by rows: the part of linear_kl that
// is not a matrix product. All pointers are device memory, all calls return before the device has
// done the work.
#pragma once

#include <cstdint>

#include "suder/linear_kl.h"
#include "suder/types.h"

namespace suder::cuda {

using Stream = std::uintptr_t;  // a cudaStream_t; 0 is the default stream

// Some columns of the products of `rows` tokens with both heads, of which only the first `tokens`
// are real: a tile's height is fixed and the rest is padding.
struct KlTile {
  float* logits = nullptr;      // [rows, cols], of the policy
  float* ref_logits = nullptr;  // and of the reference
  std::int64_t rows = 0, cols = 0;
  std::int64_t stride = 0, ref_stride = 0;
  std::int64_t tokens = 0;
  const float* bias = nullptr;  // [cols] of these columns, or absent
  const float* ref_bias = nullptr;
  const std::int64_t* target = nullptr;  // [tokens]
  std::int64_t ignore_index = -100;
  float temperature = 1.0f;
  float softcap = 0.0f;  // 0: none
};

// A row's OnlineKl between tiles, padded.
inline constexpr std::int64_t kOnlineKlFloats = 8;

struct KlStats : KlTile {
  float* online = nullptr;  // [tokens, kOnlineKlFloats]
  bool first = true;        // false: continue from `online`
  bool last = true;         // true: write the results
  float* kl = nullptr;      // [tokens]
  float* state = nullptr;   // [tokens, kKlStateFloats]; of logits before the temperature
};
void kl_stats(const KlStats& params, Stream stream);

// The gradients of the products, in their place; zero in ignored and padding rows.
struct KlGrad : KlTile {
  bool need_policy = true, need_reference = true;
  const float* grad_kl = nullptr;  // [tokens]
  const float* kl = nullptr;
  const float* state = nullptr;
};
void kl_grad(const KlGrad& params, Stream stream);

}  // namespace suder::cuda
