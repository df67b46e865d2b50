// _C.policy_loss.
//
// Called by position: names cost a small call more than its kernel. Tensors are addresses (0:
// absent), float32 and contiguous, cu_seqlens int64. Codes are places in suder_ext/types.py and
// suder_ext/policy_options.py; max_length 0: the longest sequence; num_items 0: the batch's own;
// delta infinity: none. May be absent: ref_logprob, and kl_slope with it; token_weight, and
// weight_slope with it; metrics; logprob_slope where logprob's slope is ratio_slope + kl_slope; all
// slopes, where no gradient is wanted.
//
// loss [1] is the value; its gradients are loss' upstream gradient times
//   logprob: logprob_slope or ratio_slope + kl_slope [tokens]    old_logprob: -ratio_slope
//   ref_logprob: -kl_slope    advantage: advantage_slope    token_weight: weight_slope
// Every output is written in full. Errors: ValueError (cu_seqlens not sorted from 0 to tokens).
#include "bindings/policy_loss.h"

namespace py = pybind11;

namespace suder {
namespace {

const Binding binding([](py::module_& module) {
  module.def("policy_loss", policy_loss_binding<int>([](PolicyLoss& p, int threads) {
               p.threads = threads;
               policy_loss(p);
             }));
});

}  // namespace
}  // namespace suder
