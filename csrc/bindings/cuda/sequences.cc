// sequence_reduce, its backward, group_advantage.
#include "bindings/cuda/module.h"
#include "cuda/ops.h"

namespace suder::cuda {
namespace {

using py::arg;

void set_inputs(SequenceReduce& p, Int tokens, Address cu_seqlens, Int sequences, Address target,
                Int ignore_index, bool mean) {
  p.tokens = tokens;
  p.cu_seqlens = pointer<const Int>(cu_seqlens);
  p.sequences = sequences;
  p.target = pointer<const Int>(target);
  p.ignore_index = ignore_index;
  p.mean = mean;
}

void reduce(Address logprob, Int tokens, Address cu_seqlens, Int sequences, Address target,
            Int ignore_index, bool mean, Address value, Address count, Stream stream) {
  SequenceReduceForward p;
  set_inputs(p, tokens, cu_seqlens, sequences, target, ignore_index, mean);
  p.logprob = pointer<const float>(logprob);
  p.value = pointer<float>(value);
  p.count = pointer<Int>(count);
  py::gil_scoped_release release;
  sequence_reduce_forward(p, stream);
}

void reduce_backward(Address grad_value, Int tokens, Address cu_seqlens, Int sequences,
                     Address target, Int ignore_index, bool mean, Address count,
                     Address grad_logprob, Stream stream) {
  SequenceReduceBackward p;
  set_inputs(p, tokens, cu_seqlens, sequences, target, ignore_index, mean);
  p.grad_value = pointer<const float>(grad_value);
  p.count = pointer<const Int>(count);
  p.grad_logprob = pointer<float>(grad_logprob);
  py::gil_scoped_release release;
  sequence_reduce_backward(p, stream);
}

void advantages(Address reward, Int groups, Int group_size, int normalize, Address advantage,
                Address best, Address worst, Stream stream) {
  GroupAdvantage p;
  p.reward = pointer<const float>(reward);
  p.groups = groups;
  p.group_size = group_size;
  p.normalization = static_cast<Normalization>(normalize);
  p.advantage = pointer<float>(advantage);
  p.best = pointer<Int>(best);
  p.worst = pointer<Int>(worst);
  py::gil_scoped_release release;
  group_advantage(p, stream);
}

}  // namespace

void bind_sequences(py::module_& module) {
  module.def("sequence_reduce", &reduce, py::kw_only(), arg("logprob"), arg("tokens"),
             arg("cu_seqlens"), arg("sequences"), arg("target"), arg("ignore_index"), arg("mean"),
             arg("value"), arg("count"), arg("stream"));
  module.def("sequence_reduce_backward", &reduce_backward, py::kw_only(), arg("grad_value"),
             arg("tokens"), arg("cu_seqlens"), arg("sequences"), arg("target"), arg("ignore_index"),
             arg("mean"), arg("count"), arg("grad_logprob"), arg("stream"));
  module.def("group_advantage", &advantages, py::kw_only(), arg("reward"), arg("groups"),
             arg("group_size"), arg("normalize"), arg("advantage"), arg("best"), arg("worst"),
             arg("stream"));
}

}  // namespace suder::cuda
