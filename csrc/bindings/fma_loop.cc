// _C.fma_loop(dtype, threads) -> floating-point operations done; the caller holds the watch.
#include "bindings/module.h"
#include "cpu/peak.h"

namespace py = pybind11;

namespace suder {
namespace {

const Binding binding([](py::module_& module) {
  module.def(
      "fma_loop",
      [](int dtype, int threads) {
        py::gil_scoped_release release;
        return cpu::fma_loop(static_cast<DType>(dtype), threads);
      },
      py::kw_only(), py::arg("dtype"), py::arg("threads"));
});

}  // namespace
}  // namespace suder
