// _C.linear_logprob and _C.linear_logprob_backward.
//
// Keyword arguments only. Tensors are addresses (0: absent), float32 and int64 vectors contiguous,
// matrices with contiguous rows `*_stride` elements apart. dtype: 0 float32, 1 bfloat16, 2 float16;
// it is that of hidden, weight, bias and of the gradients with respect to them, which with
// float32_gradients are float32, with float32_hidden only that of hidden. partial: float64 [N, 4].
// softcap 0: none. Every output is written in full, or with `add` grad_weight and grad_bias are
// added to. Errors: ValueError (sizes, settings), IndexError (a target outside [0, vocab), naming
// the first such row), MemoryError.
#include "suder/linear_logprob.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void set_inputs(LinearLogprob& p, Address hidden, Int tokens, Int features, Int hidden_stride,
                Address weight, Int vocab, Int weight_stride, Address bias, int dtype,
                Address target, Int ignore_index, float temperature, float softcap, int threads) {
  p.dtype = static_cast<DType>(dtype);
  p.hidden = {pointer<const void>(hidden), tokens, features, hidden_stride};
  p.weight = {pointer<const void>(weight), vocab, features, weight_stride};
  p.bias = pointer<const void>(bias);
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.temperature = temperature;
  p.softcap = softcap;
  p.threads = threads;
}

void forward(Address hidden, Int tokens, Int features, Int hidden_stride, Address weight, Int vocab,
             Int weight_stride, Address bias, int dtype, Address target, Int ignore_index,
             float temperature, float softcap, int threads, Address logprob, Address lse,
             Address entropy, Address logits, Int logits_size, Address partial, Address argmax) {
  LinearLogprobForward p;
  set_inputs(p, hidden, tokens, features, hidden_stride, weight, vocab, weight_stride, bias, dtype,
             target, ignore_index, temperature, softcap, threads);
  p.logprob = pointer<float>(logprob);
  p.lse = pointer<float>(lse);
  p.entropy = pointer<float>(entropy);
  p.logits = pointer<float>(logits);
  p.logits_size = logits_size;
  p.partial = pointer<double>(partial);
  p.argmax = pointer<Int>(argmax);
  py::gil_scoped_release release;
  linear_logprob_forward(p);
}

void backward(Address hidden, Int tokens, Int features, Int hidden_stride, Address weight,
              Int vocab, Int weight_stride, Address bias, int dtype, Address target,
              Int ignore_index, float temperature, float softcap, int threads, Address grad_logprob,
              Address grad_lse, Address grad_entropy, Address lse, Address entropy, Address logits,
              Int logits_size, Address grad_hidden, Int grad_hidden_stride, Address grad_weight,
              Int grad_weight_stride, Address grad_bias, bool float32_gradients, bool add,
              bool float32_hidden) {
  LinearLogprobBackward p;
  set_inputs(p, hidden, tokens, features, hidden_stride, weight, vocab, weight_stride, bias, dtype,
             target, ignore_index, temperature, softcap, threads);
  p.grad_logprob = pointer<const float>(grad_logprob);
  p.grad_lse = pointer<const float>(grad_lse);
  p.grad_entropy = pointer<const float>(grad_entropy);
  p.lse = pointer<const float>(lse);
  p.entropy = pointer<const float>(entropy);
  p.logits = pointer<const float>(logits);
  p.logits_size = logits_size;
  p.grad_hidden = {pointer<void>(grad_hidden), tokens, features, grad_hidden_stride};
  p.grad_weight = {pointer<void>(grad_weight), vocab, features, grad_weight_stride};
  p.grad_bias = pointer<void>(grad_bias);
  p.float32_gradients = float32_gradients;
  p.add = add;
  p.float32_hidden = float32_hidden;
  py::gil_scoped_release release;
  linear_logprob_backward(p);
}

const Binding binding([](py::module_& module) {
  module.attr("logit_tile") = py::make_tuple(kMostTileTokens, kMostTileVocab);
  module.def("linear_logprob", &forward, py::kw_only(), py::arg("hidden"), py::arg("tokens"),
             py::arg("features"), py::arg("hidden_stride"), py::arg("weight"), py::arg("vocab"),
             py::arg("weight_stride"), py::arg("bias"), py::arg("dtype"), py::arg("target"),
             py::arg("ignore_index"), py::arg("temperature"), py::arg("softcap"),
             py::arg("threads"), py::arg("logprob"), py::arg("lse"), py::arg("entropy"),
             py::arg("logits"), py::arg("logits_size"), py::arg("partial") = 0,
             py::arg("argmax") = 0);
  module.def("linear_logprob_backward", &backward, py::kw_only(), py::arg("hidden"),
             py::arg("tokens"), py::arg("features"), py::arg("hidden_stride"), py::arg("weight"),
             py::arg("vocab"), py::arg("weight_stride"), py::arg("bias"), py::arg("dtype"),
             py::arg("target"), py::arg("ignore_index"), py::arg("temperature"), py::arg("softcap"),
             py::arg("threads"), py::arg("grad_logprob"), py::arg("grad_lse"),
             py::arg("grad_entropy"), py::arg("lse"), py::arg("entropy"), py::arg("logits"),
             py::arg("logits_size"), py::arg("grad_hidden"), py::arg("grad_hidden_stride"),
             py::arg("grad_weight"), py::arg("grad_weight_stride"), py::arg("grad_bias"),
             py::arg("float32_gradients") = false, py::arg("add") = false,
             py::arg("float32_hidden") = false);
});

}  // namespace
}  // namespace suder
