// Every file of this directory defines one static Binding, which registers its functions in _C:
//   const Binding binding([](py::module_& m) { m.def("op", ...); });
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace suder {

class Binding {
 public:
  using Register = void (*)(pybind11::module_&);
  explicit Binding(Register function);
  static void register_all(pybind11::module_& module);

 private:
  Register function_;
  const Binding* next_;
};

// Addresses arrive as Python integers, 0 for an absent tensor.
template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT
}

}  // namespace suder
