// _C.logprob and _C.logprob_backward.
//
// Called by position: names cost a small call more than its kernel. Tensors are addresses (0:
// absent), float32 and int64 vectors contiguous, matrices with contiguous rows `*_stride` elements
// apart. dtype: 0 float32, 1 bfloat16, 2 float16; it is that of logits and grad_logits. softcap 0:
// none. May be absent: lse, entropy, each upstream gradient (then it is zero). Every output is
// written in full. Errors: ValueError (settings), IndexError (a target outside [0, vocab), naming
// the first such row).
#include "suder/logprob.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void set_inputs(Logprob& p, Address logits, Int tokens, Int vocab, Int logits_stride, int dtype,
                Address target, Int ignore_index, float temperature, float softcap, int threads) {
  p.dtype = static_cast<DType>(dtype);
  p.logits = {pointer<const void>(logits), tokens, vocab, logits_stride};
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.temperature = temperature;
  p.softcap = softcap;
  p.threads = threads;
}

void forward(Address logits, Int tokens, Int vocab, Int logits_stride, int dtype, Address target,
             Int ignore_index, float temperature, float softcap, int threads, Address logprob,
             Address lse, Address entropy) {
  LogprobForward p;
  set_inputs(p, logits, tokens, vocab, logits_stride, dtype, target, ignore_index, temperature,
             softcap, threads);
  p.logprob = pointer<float>(logprob);
  p.lse = pointer<float>(lse);
  p.entropy = pointer<float>(entropy);
  py::gil_scoped_release release;
  logprob_forward(p);
}

void backward(Address logits, Int tokens, Int vocab, Int logits_stride, int dtype, Address target,
              Int ignore_index, float temperature, float softcap, int threads, Address grad_logprob,
              Address grad_lse, Address grad_entropy, Address lse, Address entropy,
              Address grad_logits, Int grad_logits_stride) {
  LogprobBackward p;
  set_inputs(p, logits, tokens, vocab, logits_stride, dtype, target, ignore_index, temperature,
             softcap, threads);
  p.grad_logprob = pointer<const float>(grad_logprob);
  p.grad_lse = pointer<const float>(grad_lse);
  p.grad_entropy = pointer<const float>(grad_entropy);
  p.lse = pointer<const float>(lse);
  p.entropy = pointer<const float>(entropy);
  p.grad_logits = {pointer<void>(grad_logits), tokens, vocab, grad_logits_stride};
  py::gil_scoped_release release;
  logprob_backward(p);
}

const Binding binding([](py::module_& module) {
  module.def("logprob", &forward, py::arg("logits"), py::arg("tokens"), py::arg("vocab"),
             py::arg("logits_stride"), py::arg("dtype"), py::arg("target"), py::arg("ignore_index"),
             py::arg("temperature"), py::arg("softcap"), py::arg("threads"), py::arg("logprob"),
             py::arg("lse"), py::arg("entropy"));
  module.def("logprob_backward", &backward, py::arg("logits"), py::arg("tokens"), py::arg("vocab"),
             py::arg("logits_stride"), py::arg("dtype"), py::arg("target"), py::arg("ignore_index"),
             py::arg("temperature"), py::arg("softcap"), py::arg("threads"),
             py::arg("grad_logprob"), py::arg("grad_lse"), py::arg("grad_entropy"), py::arg("lse"),
             py::arg("entropy"), py::arg("grad_logits"), py::arg("grad_logits_stride"));
});

}  // namespace
}  // namespace suder
