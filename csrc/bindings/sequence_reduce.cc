// _C.sequence_reduce and _C.sequence_reduce_backward.
//
// Called by position: names cost a small call more than its kernel. Tensors are addresses,
// contiguous: float32, but int64 for target, cu_seqlens and count. Every output is written in full.
// Errors: ValueError (cu_seqlens not sorted from 0 to tokens).
#include "suder/sequence_reduce.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void set_inputs(SequenceReduce& p, Int tokens, Int sequences, Address cu_seqlens, Address target,
                Int ignore_index, bool mean, int threads) {
  p.tokens = tokens;
  p.sequences = sequences;
  p.cu_seqlens = pointer<const Int>(cu_seqlens);
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.mean = mean;
  p.threads = threads;
}

void forward(Address logprob, Int tokens, Address cu_seqlens, Int sequences, Address target,
             Int ignore_index, bool mean, int threads, Address value, Address count) {
  SequenceReduceForward p;
  set_inputs(p, tokens, sequences, cu_seqlens, target, ignore_index, mean, threads);
  p.logprob = pointer<const float>(logprob);
  p.value = pointer<float>(value);
  p.count = pointer<Int>(count);
  py::gil_scoped_release release;
  sequence_reduce_forward(p);
}

void backward(Address grad_value, Int tokens, Address cu_seqlens, Int sequences, Address target,
              Int ignore_index, bool mean, int threads, Address count, Address grad_logprob) {
  SequenceReduceBackward p;
  set_inputs(p, tokens, sequences, cu_seqlens, target, ignore_index, mean, threads);
  p.grad_value = pointer<const float>(grad_value);
  p.count = pointer<const Int>(count);
  p.grad_logprob = pointer<float>(grad_logprob);
  py::gil_scoped_release release;
  sequence_reduce_backward(p);
}

const Binding binding([](py::module_& module) {
  module.def("sequence_reduce", &forward, py::arg("logprob"), py::arg("tokens"),
             py::arg("cu_seqlens"), py::arg("sequences"), py::arg("target"),
             py::arg("ignore_index"), py::arg("mean"), py::arg("threads"), py::arg("value"),
             py::arg("count"));
  module.def("sequence_reduce_backward", &backward, py::arg("grad_value"), py::arg("tokens"),
             py::arg("cu_seqlens"), py::arg("sequences"), py::arg("target"),
             py::arg("ignore_index"), py::arg("mean"), py::arg("threads"), py::arg("count"),
             py::arg("grad_logprob"));
});

}  // namespace
}  // namespace suder
