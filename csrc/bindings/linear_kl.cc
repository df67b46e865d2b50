// _C.linear_kl and _C.linear_kl_backward.
//
// Keyword arguments only, conventions of linear_logprob.cc. `target` [tokens] says which rows are
// ignored; dtype is that of both heads and of their gradients. state: float32 [tokens, 4]; logits:
// float32 [2, logits_size]. Every output is written in full, but those of no tokens are not.
// Errors: ValueError (sizes, settings), MemoryError.
#include "suder/linear_kl.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

// hidden, features, hidden_stride, weight, weight_stride, bias
using Head = std::tuple<Address, Int, Int, Address, Int, Address>;
// grad_hidden, grad_weight, grad_bias: 0 for those that nobody asks for
using Gradients = std::tuple<Address, Address, Address>;

struct Options {
  Int tokens, vocab;
  int dtype;
  Address target;
  Int ignore_index;
  float temperature, softcap;
  int threads;
};

void set_head(LinearLogprob& p, const Head& head, const Options& options) {
  const auto [hidden, features, hidden_stride, weight, weight_stride, bias] = head;
  p.dtype = static_cast<DType>(options.dtype);
  p.hidden = {pointer<const void>(hidden), options.tokens, features, hidden_stride};
  p.weight = {pointer<const void>(weight), options.vocab, features, weight_stride};
  p.bias = pointer<const void>(bias);
  p.target = pointer<const Int>(options.target);
  p.ignore_index = options.ignore_index;
  p.temperature = options.temperature;
  p.softcap = options.softcap;
  p.threads = options.threads;
}

void set_gradients(LinearLogprobBackward& p, const Gradients& gradients, const float* logits,
                   Int logits_size) {
  const auto [hidden, weight, bias] = gradients;
  p.grad_hidden = {pointer<void>(hidden), p.hidden.rows, p.hidden.cols, p.hidden.cols};
  p.grad_weight = {pointer<void>(weight), p.weight.rows, p.weight.cols, p.weight.cols};
  p.grad_bias = pointer<void>(bias);
  p.logits = logits_size == 0 ? nullptr : logits;
  p.logits_size = logits_size;
}

void forward(const Head& policy, const Head& reference, Int tokens, Int vocab, int dtype,
             Address target, Int ignore_index, float temperature, float softcap, int threads,
             Address kl, Address state, Address logits, Int logits_size) {
  const Options options = {tokens,       vocab,       dtype,   target,
                           ignore_index, temperature, softcap, threads};
  LinearKlForward p;
  set_head(p.policy, policy, options);
  set_head(p.reference, reference, options);
  p.kl = pointer<float>(kl);
  p.state = pointer<float>(state);
  p.logits = logits_size == 0 ? nullptr : pointer<float>(logits);
  p.logits_size = logits_size;
  py::gil_scoped_release release;
  linear_kl_forward(p);
}

void backward(const Head& policy, const Head& reference, Int tokens, Int vocab, int dtype,
              Address target, Int ignore_index, float temperature, float softcap, int threads,
              Address grad_kl, Address kl, Address state, Address logits, Int logits_size,
              const Gradients& policy_gradients, const Gradients& reference_gradients) {
  const Options options = {tokens,       vocab,       dtype,   target,
                           ignore_index, temperature, softcap, threads};
  const float* kept = pointer<const float>(logits);
  LinearKlBackward p;
  set_head(p.policy, policy, options);
  set_head(p.reference, reference, options);
  set_gradients(p.policy, policy_gradients, kept, logits_size);
  set_gradients(p.reference, reference_gradients, kept + logits_size, logits_size);
  p.grad_kl = pointer<const float>(grad_kl);
  p.kl = pointer<const float>(kl);
  p.state = pointer<const float>(state);
  py::gil_scoped_release release;
  linear_kl_backward(p);
}

const Binding binding([](py::module_& module) {
  module.def("linear_kl", &forward, py::kw_only(), py::arg("policy"), py::arg("reference"),
             py::arg("tokens"), py::arg("vocab"), py::arg("dtype"), py::arg("target"),
             py::arg("ignore_index"), py::arg("temperature"), py::arg("softcap"),
             py::arg("threads"), py::arg("kl"), py::arg("state"), py::arg("logits"),
             py::arg("logits_size"));
  module.def("linear_kl_backward", &backward, py::kw_only(), py::arg("policy"),
             py::arg("reference"), py::arg("tokens"), py::arg("vocab"), py::arg("dtype"),
             py::arg("target"), py::arg("ignore_index"), py::arg("temperature"), py::arg("softcap"),
             py::arg("threads"), py::arg("grad_kl"), py::arg("kl"), py::arg("state"),
             py::arg("logits"), py::arg("logits_size"), py::arg("policy_gradients"),
             py::arg("reference_gradients"));
});

}  // namespace
}  // namespace suder
