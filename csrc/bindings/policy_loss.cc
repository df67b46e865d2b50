// _C.policy_loss.
//
// Called by position: names cost a small call more than its kernel. Tensors are addresses (0:
// absent), float32 and contiguous, cu_seqlens int64. reduction: 0 "sequence", 1 "token", 2
// "constant"; level: 0 "token", 1 "sequence"; max_length 0: the longest sequence. May be absent:
// ref_logprob, and kl_slope with it; all slopes, where no gradient is wanted.
//
// loss [1] is the value; its gradients are loss' upstream gradient times
//   logprob: ratio_slope + kl_slope [tokens]    old_logprob: -ratio_slope    ref_logprob: -kl_slope
//   advantage: advantage_slope [sequences]
// Every output is written in full. Errors: ValueError (cu_seqlens not sorted from 0 to tokens).
#include "suder/policy_loss.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void run(Address logprob, Address old_logprob, Address ref_logprob, Int tokens, Address advantage,
         Address cu_seqlens, Int sequences, double clip_low, double clip_high, double kl_coef,
         int reduction, int level, Int max_length, int threads, Address loss, Address ratio_slope,
         Address kl_slope, Address advantage_slope) {
  PolicyLoss p;
  p.tokens = tokens;
  p.sequences = sequences;
  p.cu_seqlens = pointer<const Int>(cu_seqlens);
  p.logprob = pointer<const float>(logprob);
  p.old_logprob = pointer<const float>(old_logprob);
  p.ref_logprob = pointer<const float>(ref_logprob);
  p.advantage = pointer<const float>(advantage);
  p.clip_low = clip_low;
  p.clip_high = clip_high;
  p.kl_coef = kl_coef;
  p.reduction = static_cast<PolicyReduction>(reduction);
  p.level = static_cast<PolicyLevel>(level);
  p.max_length = max_length;
  p.threads = threads;
  p.loss = pointer<float>(loss);
  p.ratio_slope = pointer<float>(ratio_slope);
  p.kl_slope = pointer<float>(kl_slope);
  p.advantage_slope = pointer<float>(advantage_slope);
  py::gil_scoped_release release;
  policy_loss(p);
}

const Binding binding([](py::module_& module) {
  module.def("policy_loss", &run, py::arg("logprob"), py::arg("old_logprob"),
             py::arg("ref_logprob"), py::arg("tokens"), py::arg("advantage"), py::arg("cu_seqlens"),
             py::arg("sequences"), py::arg("clip_low"), py::arg("clip_high"), py::arg("kl_coef"),
             py::arg("reduction"), py::arg("level"), py::arg("max_length"), py::arg("threads"),
             py::arg("loss"), py::arg("ratio_slope"), py::arg("kl_slope"),
             py::arg("advantage_slope"));
});

}  // namespace
}  // namespace suder
