// _C.sample_token and _C.linear_sample_token.
//
// Called by position. Tensors are addresses (0: absent), vectors contiguous, matrices with
// contiguous rows `*_stride` elements apart. dtype: 0 float32, 1 bfloat16, 2 float16; it is that of
// logits, or of hidden, weight and bias. uniform float64, or absent: greedy. top_k 0: all. Results:
// token int64, logprob and entropy float32, each [rows] and written in full. Errors: ValueError
// (sizes, settings), MemoryError.
#include "suder/sample_token.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void set_draw(Draw& p, Address uniform, Int top_k, double top_p, Address token, Address logprob,
              Address entropy) {
  p.uniform = pointer<const double>(uniform);
  p.top_k = top_k;
  p.top_p = top_p;
  p.token = pointer<Int>(token);
  p.logprob = pointer<float>(logprob);
  p.entropy = pointer<float>(entropy);
}

void from_logits(Address logits, Int rows, Int vocab, Int logits_stride, int dtype,
                 float temperature, int threads, Address uniform, Int top_k, double top_p,
                 Address token, Address logprob, Address entropy) {
  SampleToken p;
  p.dtype = static_cast<DType>(dtype);
  p.logits = {pointer<const void>(logits), rows, vocab, logits_stride};
  p.temperature = temperature;
  p.threads = threads;
  set_draw(p, uniform, top_k, top_p, token, logprob, entropy);
  py::gil_scoped_release release;
  sample_token(p);
}

void from_hidden(Address hidden, Int rows, Int features, Int hidden_stride, Address weight,
                 Int vocab, Int weight_stride, Address bias, int dtype, float temperature,
                 int threads, Address uniform, Int top_k, double top_p, Address token,
                 Address logprob, Address entropy) {
  LinearSampleToken p;
  p.head.dtype = static_cast<DType>(dtype);
  p.head.hidden = {pointer<const void>(hidden), rows, features, hidden_stride};
  p.head.weight = {pointer<const void>(weight), vocab, features, weight_stride};
  p.head.bias = pointer<const void>(bias);
  p.head.temperature = temperature;
  p.head.threads = threads;
  set_draw(p, uniform, top_k, top_p, token, logprob, entropy);
  py::gil_scoped_release release;
  linear_sample_token(p);
}

const Binding binding([](py::module_& module) {
  module.def("sample_token", &from_logits, py::arg("logits"), py::arg("rows"), py::arg("vocab"),
             py::arg("logits_stride"), py::arg("dtype"), py::arg("temperature"), py::arg("threads"),
             py::arg("uniform"), py::arg("top_k"), py::arg("top_p"), py::arg("token"),
             py::arg("logprob"), py::arg("entropy"));
  module.def("linear_sample_token", &from_hidden, py::arg("hidden"), py::arg("rows"),
             py::arg("features"), py::arg("hidden_stride"), py::arg("weight"), py::arg("vocab"),
             py::arg("weight_stride"), py::arg("bias"), py::arg("dtype"), py::arg("temperature"),
             py::arg("threads"), py::arg("uniform"), py::arg("top_k"), py::arg("top_p"),
             py::arg("token"), py::arg("logprob"), py::arg("entropy"));
});

}  // namespace
}  // namespace suder
