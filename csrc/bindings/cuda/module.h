// Every file of this directory binds one group of kernels. Arguments are by keyword: addresses (0:
// absent), sizes, strides in elements, dtype (0 float32, 1 bfloat16, 2 float16) and the stream.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace py = pybind11;

namespace suder::cuda {

using Address = std::uintptr_t;
using Int = std::int64_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);  // NOLINT
}

void bind_logits(py::module_& module);
void bind_kl(py::module_& module);
void bind_fused_forward(py::module_& module);
void bind_fused_grad(py::module_& module);
void bind_kept_grad(py::module_& module);
void bind_sequences(py::module_& module);
void bind_losses(py::module_& module);
void bind_sample_token(py::module_& module);

}  // namespace suder::cuda
