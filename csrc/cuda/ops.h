// Entry points of the ops whose parameters are the CPU's (include/suder/<op>.h), with device
// pointers; `threads` has no meaning here. All return before the device has done the work. Offsets
// that are not sorted within [0, tokens] give wrong results, never an access outside the arrays.
#pragma once

#include <cstdint>

#include "suder/group_advantage.h"
#include "suder/policy_loss.h"
#include "suder/preference_loss.h"
#include "suder/sample_token.h"
#include "suder/sequence_reduce.h"

namespace suder::cuda {

using Stream = std::uintptr_t;  // a cudaStream_t; 0 is the default stream

void sequence_reduce_forward(const SequenceReduceForward& params, Stream stream);
void sequence_reduce_backward(const SequenceReduceBackward& params, Stream stream);

void group_advantage(const GroupAdvantage& params, Stream stream);

// `ranks` [2 * pairs] is room for the sorting losses; the others need none.
void preference_loss_forward(const PreferenceLoss& params, std::int64_t* ranks, Stream stream);
void preference_loss_backward(const PreferenceLossBackward& params, Stream stream);

// `totals` [5 * sequences] is room for each sequence's PolicyTotals.
void policy_loss(const PolicyLoss& params, double* totals, Stream stream);

// Nothing is cut off: top_k and top_p must be 0 and 1. `bias` [V] is added to the logits; or
// absent.
void sample_token(const SampleToken& params, const float* bias, Stream stream);

}  // namespace suder::cuda
