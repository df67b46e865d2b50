// _C.fma_peak(dtype, threads, seconds) -> floating-point operations per second; for benchmarks.
#include "bindings/module.h"
#include "cpu/peak.h"

namespace py = pybind11;

namespace suder {
namespace {

const Binding binding([](py::module_& module) {
  module.def(
      "fma_peak",
      [](int dtype, int threads, double seconds) {
        py::gil_scoped_release release;
        return cpu::fma_peak(static_cast<DType>(dtype), threads, seconds);
      },
      py::kw_only(), py::arg("dtype"), py::arg("threads"), py::arg("seconds"));
});

}  // namespace
}  // namespace suder
