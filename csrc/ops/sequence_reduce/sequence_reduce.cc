// Checks and dispatch.
#include "suder/sequence_reduce.h"

#include "common/cu_seqlens.h"
#include "cpu/isa.h"

namespace suder {

SUDER_DECLARE_ISA(void sequence_reduce_forward_cpu(const SequenceReduceForward& params))
SUDER_DECLARE_ISA(void sequence_reduce_backward_cpu(const SequenceReduceBackward& params))

void sequence_reduce_forward(const SequenceReduceForward& params) {
  check_cu_seqlens("sequence_reduce", params.cu_seqlens, params.sequences, params.tokens);
  SUDER_CALL_ISA(sequence_reduce_forward_cpu, params);
}

void sequence_reduce_backward(const SequenceReduceBackward& params) {
  check_cu_seqlens("sequence_reduce_backward", params.cu_seqlens, params.sequences, params.tokens);
  SUDER_CALL_ISA(sequence_reduce_backward_cpu, params);
}

}  // namespace suder
