// What a fused forward leaves for its backward, in place of the products that the logits come from.
#pragma once

#include <cstdint>

namespace suder::cuda {

// Maxima are of so many columns, or of more and then written several times.
inline constexpr int kKeptColumns = 64;

// Of the first tokens of a batch: exponentials of the final logits z (after softcap) relative to
// the maximum of their columns, float16 of 2^15 exp((z - maximum) / temperature).
//
// Why float16: gradients of logits are rounded to 16 bits later, in bfloat16 by 2^-8 of themselves,
// in float16 by 2^-11, and what they are made from should be no coarser than the finer of the two.
// It has no exponent to spare as bfloat16 has, but none is needed: with 2^15 all of its digits are
// there down to 2^-29 of the maximum and the last one at 2^-39. Rows whose gradients are that
// small, for a target as good as certain, have a log p that float32 cannot tell from 0.
struct KeptExps {
  void* exps = nullptr;      // [tokens, stride] float16, rows 16-byte aligned; or absent
  float* maxima = nullptr;   // [stride / kKeptColumns, rounded up; tokens]
  float* logprob = nullptr;  // [tokens] of the target
  std::int64_t tokens = 0, stride = 0;

  static std::int64_t stride_of(std::int64_t vocab) { return (vocab + 7) / 8 * 8; }
  static std::int64_t maxima_of(std::int64_t vocab) {
    return (vocab + kKeptColumns - 1) / kKeptColumns;
  }

  // In stride / 2 + maxima_of + 1 floats a token, 16-byte aligned.
  static KeptExps at(float* memory, std::int64_t tokens, std::int64_t vocab) {
    const std::int64_t stride = stride_of(vocab);
    float* maxima = memory + tokens * (stride / 2);
    return {memory, maxima, maxima + tokens * maxima_of(vocab), tokens, stride};
  }
};

}  // namespace suder::cuda
