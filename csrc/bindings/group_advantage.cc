// _C.group_advantage.
//
// Called by position: names cost a small call more than its kernel. Tensors are addresses,
// contiguous: reward and advantage float32 [groups * group_size], best and worst int64 [groups].
// normalize: 0 none, 1 "std", 2 "mean". Every output is written in full. Errors: ValueError
// (group_size).
#include "suder/group_advantage.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void run(Address reward, Int groups, Int group_size, int normalize, Address advantage, Address best,
         Address worst) {
  GroupAdvantage p;
  p.reward = pointer<const float>(reward);
  p.groups = groups;
  p.group_size = group_size;
  p.normalization = static_cast<Normalization>(normalize);
  p.advantage = pointer<float>(advantage);
  p.best = pointer<Int>(best);
  p.worst = pointer<Int>(worst);
  py::gil_scoped_release release;
  group_advantage(p);
}

const Binding binding([](py::module_& module) {
  module.def("group_advantage", &run, py::arg("reward"), py::arg("groups"), py::arg("group_size"),
             py::arg("normalize"), py::arg("advantage"), py::arg("best"), py::arg("worst"));
});

}  // namespace
}  // namespace suder
