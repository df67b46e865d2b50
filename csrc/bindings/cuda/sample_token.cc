// sample_token: from logits, nothing cut off.
#include "bindings/cuda/module.h"
#include "cuda/ops.h"

namespace suder::cuda {
namespace {

using py::arg;

void sample(int dtype, Address logits, Int rows, Int cols, Int stride, Address bias,
            float temperature, Address uniform, Address token, Address logprob, Address entropy,
            Stream stream) {
  SampleToken p;
  p.dtype = static_cast<DType>(dtype);
  p.logits = {pointer<const void>(logits), rows, cols, stride};
  p.temperature = temperature;
  p.uniform = pointer<const double>(uniform);
  p.token = pointer<Int>(token);
  p.logprob = pointer<float>(logprob);
  p.entropy = pointer<float>(entropy);
  py::gil_scoped_release release;
  sample_token(p, pointer<const float>(bias), stream);
}

}  // namespace

void bind_sample_token(py::module_& module) {
  module.def("sample_token", &sample, py::kw_only(), arg("dtype"), arg("logits"), arg("rows"),
             arg("cols"), arg("stride"), arg("bias"), arg("temperature"), arg("uniform"),
             arg("token"), arg("logprob"), arg("entropy"), arg("stream"));
}

}  // namespace suder::cuda
