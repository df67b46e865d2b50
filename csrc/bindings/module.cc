#include "bindings/module.h"

#include "common/build_info.h"
#include "cpu/isa.h"

namespace py = pybind11;

namespace suder {
namespace {

const Binding*& first() {
  static const Binding* head = nullptr;
  return head;
}

// {"version", "compiler", "sanitized", "isa" (in use), "isas" (usable here), "cuda_missing"}
py::dict build_info_dict() {
  const BuildInfo build = build_info();
  py::list isas;
  for (cpu::Isa isa : cpu::available_isas()) isas.append(cpu::isa_name(isa));
  py::dict info;
  info["version"] = build.version;
  info["compiler"] = build.compiler;
  info["sanitized"] = build.sanitized;
  info["isa"] = cpu::isa_name(cpu::selected_isa());
  info["isas"] = isas;
  info["cuda_missing"] = build.cuda_missing;
  return info;
}

}  // namespace

Binding::Binding(Register function) : function_(function), next_(first()) { first() = this; }

void Binding::register_all(py::module_& module) {
  for (const Binding* binding = first(); binding != nullptr; binding = binding->next_) {
    binding->function_(module);
  }
}

}  // namespace suder

PYBIND11_MODULE(_C, module, py::mod_gil_not_used()) {
  module.doc() =
      "Compiled kernels of suder_ext: addresses and sizes in, nothing checked for shape.";
  module.def("build_info", &suder::build_info_dict);
  suder::Binding::register_all(module);
}
