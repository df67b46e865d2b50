// logits_stats, logits_grad, logits_splits, column_sum.
#include "cuda/logits.h"

#include "bindings/cuda/module.h"

namespace suder::cuda {
namespace {

using py::arg;

void set_tile(LogitsTile& p, int dtype, Address logits, Int rows, Int cols, Int stride, Int tokens,
              Int first_column, Address bias, Address target, Int vocab, Int ignore_index,
              float temperature, float softcap) {
  p.dtype = static_cast<DType>(dtype);
  p.logits = {pointer<const void>(logits), rows, cols, stride};
  p.tokens = tokens;
  p.first_column = first_column;
  p.bias = pointer<const float>(bias);
  p.target = pointer<const Int>(target);
  p.vocab = vocab;
  p.ignore_index = ignore_index;
  p.temperature = temperature;
  p.softcap = softcap;
}

void stats(int dtype, Address logits, Int rows, Int cols, Int stride, Int tokens, Int first_column,
           Address bias, Address target, Int vocab, Int ignore_index, float temperature,
           float softcap, Address state, bool first, bool last, Address logprob, Address lse,
           Address entropy, Stream stream) {
  LogitsStats p;
  set_tile(p, dtype, logits, rows, cols, stride, tokens, first_column, bias, target, vocab,
           ignore_index, temperature, softcap);
  p.state = pointer<float>(state);
  p.first = first;
  p.last = last;
  p.logprob = pointer<float>(logprob);
  p.lse = pointer<float>(lse);
  p.entropy = pointer<float>(entropy);
  py::gil_scoped_release release;
  logits_stats(p, stream);
}

void grad(int dtype, Address logits, Int rows, Int cols, Int stride, Int tokens, Int first_column,
          Address bias, Address target, Int vocab, Int ignore_index, float temperature,
          float softcap, int grad_dtype, Address grad, Int grad_stride, Address lse,
          Address entropy, Address grad_logprob, Address grad_lse, Address grad_entropy,
          Stream stream) {
  LogitsGrad p;
  set_tile(p, dtype, logits, rows, cols, stride, tokens, first_column, bias, target, vocab,
           ignore_index, temperature, softcap);
  p.grad_dtype = static_cast<DType>(grad_dtype);
  p.grad = {pointer<void>(grad), rows, cols, grad_stride};
  p.lse = pointer<const float>(lse);
  p.entropy = pointer<const float>(entropy);
  p.grad_logprob = pointer<const float>(grad_logprob);
  p.grad_lse = pointer<const float>(grad_lse);
  p.grad_entropy = pointer<const float>(grad_entropy);
  py::gil_scoped_release release;
  logits_grad(p, stream);
}

void sum_columns(int dtype, Address values, Int rows, Int cols, Int stride, Address sums,
                 Stream stream) {
  py::gil_scoped_release release;
  column_sum({static_cast<DType>(dtype),
              {pointer<const void>(values), rows, cols, stride},
              pointer<float>(sums)},
             stream);
}

}  // namespace

void bind_logits(py::module_& module) {
  module.def("logits_splits", &logits_splits, arg("vocab"));
  module.def("logits_stats", &stats, py::kw_only(), arg("dtype"), arg("logits"), arg("rows"),
             arg("cols"), arg("stride"), arg("tokens"), arg("first_column"), arg("bias"),
             arg("target"), arg("vocab"), arg("ignore_index"), arg("temperature"), arg("softcap"),
             arg("state"), arg("first"), arg("last"), arg("logprob"), arg("lse"), arg("entropy"),
             arg("stream"));
  module.def("logits_grad", &grad, py::kw_only(), arg("dtype"), arg("logits"), arg("rows"),
             arg("cols"), arg("stride"), arg("tokens"), arg("first_column"), arg("bias"),
             arg("target"), arg("vocab"), arg("ignore_index"), arg("temperature"), arg("softcap"),
             arg("grad_dtype"), arg("grad"), arg("grad_stride"), arg("lse"), arg("entropy"),
             arg("grad_logprob"), arg("grad_lse"), arg("grad_entropy"), arg("stream"));
  module.def("column_sum", &sum_columns, py::kw_only(), arg("dtype"), arg("values"), arg("rows"),
             arg("cols"), arg("stride"), arg("sums"), arg("stream"));
}

}  // namespace suder::cuda
