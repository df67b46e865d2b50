// kl_stats, kl_grad.
#include "cuda/kl.h"

#include "bindings/cuda/module.h"

namespace suder::cuda {
namespace {

using py::arg;

void set_tile(KlTile& p, Address logits, Address ref_logits, Int rows, Int cols, Int stride,
              Int ref_stride, Int tokens, Address bias, Address ref_bias, Address target,
              Int ignore_index, float temperature, float softcap) {
  p.logits = pointer<float>(logits);
  p.ref_logits = pointer<float>(ref_logits);
  p.rows = rows;
  p.cols = cols;
  p.stride = stride;
  p.ref_stride = ref_stride;
  p.tokens = tokens;
  p.bias = pointer<const float>(bias);
  p.ref_bias = pointer<const float>(ref_bias);
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.temperature = temperature;
  p.softcap = softcap;
}

void stats(Address logits, Address ref_logits, Int rows, Int cols, Int stride, Int ref_stride,
           Int tokens, Address bias, Address ref_bias, Address target, Int ignore_index,
           float temperature, float softcap, Address online, bool first, bool last, Address kl,
           Address state, Stream stream) {
  KlStats p;
  set_tile(p, logits, ref_logits, rows, cols, stride, ref_stride, tokens, bias, ref_bias, target,
           ignore_index, temperature, softcap);
  p.online = pointer<float>(online);
  p.first = first;
  p.last = last;
  p.kl = pointer<float>(kl);
  p.state = pointer<float>(state);
  py::gil_scoped_release release;
  kl_stats(p, stream);
}

void grad(Address logits, Address ref_logits, Int rows, Int cols, Int stride, Int ref_stride,
          Int tokens, Address bias, Address ref_bias, Address target, Int ignore_index,
          float temperature, float softcap, bool need_policy, bool need_reference, Address grad_kl,
          Address kl, Address state, Stream stream) {
  KlGrad p;
  set_tile(p, logits, ref_logits, rows, cols, stride, ref_stride, tokens, bias, ref_bias, target,
           ignore_index, temperature, softcap);
  p.need_policy = need_policy;
  p.need_reference = need_reference;
  p.grad_kl = pointer<const float>(grad_kl);
  p.kl = pointer<const float>(kl);
  p.state = pointer<const float>(state);
  py::gil_scoped_release release;
  kl_grad(p, stream);
}

}  // namespace

void bind_kl(py::module_& module) {
  module.def("kl_stats", &stats, py::kw_only(), arg("logits"), arg("ref_logits"), arg("rows"),
             arg("cols"), arg("stride"), arg("ref_stride"), arg("tokens"), arg("bias"),
             arg("ref_bias"), arg("target"), arg("ignore_index"), arg("temperature"),
             arg("softcap"), arg("online"), arg("first"), arg("last"), arg("kl"), arg("state"),
             arg("stream"));
  module.def("kl_grad", &grad, py::kw_only(), arg("logits"), arg("ref_logits"), arg("rows"),
             arg("cols"), arg("stride"), arg("ref_stride"), arg("tokens"), arg("bias"),
             arg("ref_bias"), arg("target"), arg("ignore_index"), arg("temperature"),
             arg("softcap"), arg("need_policy"), arg("need_reference"), arg("grad_kl"), arg("kl"),
             arg("state"), arg("stream"));
}

}  // namespace suder::cuda
