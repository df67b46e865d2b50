// The gradients of a block of logits, as the products of the backward pass read them.
#pragma once

#include <type_traits>

#include "ops/linear_logprob/backward_block.h"

namespace suder {
inline namespace SUDER_ISA {

// Gradients of logits are kept in bfloat16 where the processor multiplies it, else in float.
template <class T>
using GradientOf = std::conditional_t<UnitsOf<T>::kElements == 2, BFloat16, float>;

// G [vocabulary, tokens] of the block; a vector past the last token may be read.
template <class T>
struct GradientMatrix {
  const GradientOf<T>* data;
  std::int64_t stride;
};

}  // namespace SUDER_ISA
}  // namespace suder
