// fused_grad and the number of its rows of column sums.
#include "cuda/fused_grad.h"

#include "bindings/cuda/module.h"

namespace suder::cuda {
namespace {

using py::arg;

void gradient(int dtype, Address hidden, Int tokens, Int features, Int hidden_stride,
              Address weight, Int cols, Int weight_stride, Int first_column, Int vocab,
              Address bias, int bias_dtype, Address target, Int ignore_index, float temperature,
              float softcap, Address lse, Address entropy, Address grad_logprob, Address grad_lse,
              Address grad_entropy, Address grad, Int grad_stride, Address column_sums, bool hopper,
              Stream stream) {
  FusedGrad p;
  p.dtype = static_cast<DType>(dtype);
  p.hidden = {pointer<const void>(hidden), tokens, features, hidden_stride};
  p.weight = {pointer<const void>(weight), cols, features, weight_stride};
  p.first_column = first_column;
  p.vocab = vocab;
  p.bias = pointer<const void>(bias);
  p.bias_dtype = static_cast<DType>(bias_dtype);
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.temperature = temperature;
  p.softcap = softcap;
  p.lse = pointer<const float>(lse);
  p.entropy = pointer<const float>(entropy);
  p.grad_logprob = pointer<const float>(grad_logprob);
  p.grad_lse = pointer<const float>(grad_lse);
  p.grad_entropy = pointer<const float>(grad_entropy);
  p.grad = {pointer<void>(grad), tokens, cols, grad_stride};
  p.column_sums = pointer<float>(column_sums);
  p.hopper = hopper;
  py::gil_scoped_release release;
  fused_grad(p, stream);
}

}  // namespace

void bind_fused_grad(py::module_& module) {
  module.def("fused_grad_row_parts", &fused_grad_row_parts, arg("tokens"), arg("hopper"));
  module.def("fused_grad", &gradient, py::kw_only(), arg("dtype"), arg("hidden"), arg("tokens"),
             arg("features"), arg("hidden_stride"), arg("weight"), arg("cols"),
             arg("weight_stride"), arg("first_column"), arg("vocab"), arg("bias"),
             arg("bias_dtype"), arg("target"), arg("ignore_index"), arg("temperature"),
             arg("softcap"), arg("lse"), arg("entropy"), arg("grad_logprob"), arg("grad_lse"),
             arg("grad_entropy"), arg("grad"), arg("grad_stride"), arg("column_sums"),
             arg("hopper"), arg("stream"));
}

}  // namespace suder::cuda
