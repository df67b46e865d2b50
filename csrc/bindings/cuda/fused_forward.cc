// fused_forward and the size of its workspace in floats.
#include "cuda/fused_forward.h"

#include "bindings/cuda/module.h"

namespace suder::cuda {
namespace {

using py::arg;

void forward(int dtype, Address hidden, Int tokens, Int features, Int hidden_stride, Address weight,
             Int vocab, Int weight_stride, Address bias, int bias_dtype, Address target,
             Int ignore_index, float temperature, float softcap, Address workspace, Address logprob,
             Address lse, Address entropy, Address kept, Int kept_tokens, bool hopper,
             Stream stream) {
  FusedForward p;
  p.dtype = static_cast<DType>(dtype);
  p.hidden = {pointer<const void>(hidden), tokens, features, hidden_stride};
  p.weight = {pointer<const void>(weight), vocab, features, weight_stride};
  p.bias = pointer<const void>(bias);
  p.bias_dtype = static_cast<DType>(bias_dtype);
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.temperature = temperature;
  p.softcap = softcap;
  p.workspace = pointer<float>(workspace);
  p.logprob = pointer<float>(logprob);
  p.lse = pointer<float>(lse);
  p.entropy = pointer<float>(entropy);
  if (kept_tokens > 0) p.kept = KeptExps::at(pointer<float>(kept), kept_tokens, vocab);
  p.hopper = hopper;
  py::gil_scoped_release release;
  fused_forward(p, stream);
}

}  // namespace

void bind_fused_forward(py::module_& module) {
  module.def("fused_forward_workspace", &fused_forward_workspace, arg("tokens"), arg("vocab"));
  module.def("fused_forward_keeps", &fused_forward_keeps, arg("hopper"));
  module.def("fused_forward", &forward, py::kw_only(), arg("dtype"), arg("hidden"), arg("tokens"),
             arg("features"), arg("hidden_stride"), arg("weight"), arg("vocab"),
             arg("weight_stride"), arg("bias"), arg("bias_dtype"), arg("target"),
             arg("ignore_index"), arg("temperature"), arg("softcap"), arg("workspace"),
             arg("logprob"), arg("lse"), arg("entropy"), arg("kept"), arg("kept_tokens"),
             arg("hopper"), arg("stream"));
}

}  // namespace suder::cuda
