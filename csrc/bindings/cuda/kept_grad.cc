// kept_grad and the number of its rows of column sums.
#include "cuda/kept_grad.h"

#include "bindings/cuda/module.h"

namespace suder::cuda {
namespace {

using py::arg;

void gradient(int dtype, Address kept, Int kept_tokens, Int first_token, Int tokens,
              Int first_column, Int cols, Int vocab, Address target, Int ignore_index,
              float temperature, float softcap, Address lse, Address entropy, Address grad_logprob,
              Address grad_lse, Address grad_entropy, Address grad, Int grad_stride,
              Address column_sums, Stream stream) {
  KeptGrad p;
  p.dtype = static_cast<DType>(dtype);
  p.kept = KeptExps::at(pointer<float>(kept), kept_tokens, vocab);
  p.first_token = first_token;
  p.tokens = tokens;
  p.first_column = first_column;
  p.cols = cols;
  p.vocab = vocab;
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
  py::gil_scoped_release release;
  kept_grad(p, stream);
}

}  // namespace

void bind_kept_grad(py::module_& module) {
  module.def("kept_grad_row_parts", &kept_grad_row_parts, arg("tokens"));
  module.def("kept_grad", &gradient, py::kw_only(), arg("dtype"), arg("kept"), arg("kept_tokens"),
             arg("first_token"), arg("tokens"), arg("first_column"), arg("cols"), arg("vocab"),
             arg("target"), arg("ignore_index"), arg("temperature"), arg("softcap"), arg("lse"),
             arg("entropy"), arg("grad_logprob"), arg("grad_lse"), arg("grad_entropy"), arg("grad"),
             arg("grad_stride"), arg("column_sums"), arg("stream"));
}

}  // namespace suder::cuda
