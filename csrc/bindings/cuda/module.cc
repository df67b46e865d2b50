// The kernels of CUDA tensors. The same file makes _C_cuda (nvcc) and, for the tests, _C_emulated.
#include "bindings/cuda/module.h"

#include "cuda/fused_forward.h"

PYBIND11_MODULE(SUDER_CUDA_MODULE, module, py::mod_gil_not_used()) {
  module.doc() =
      "CUDA kernels of suder_ext: device addresses, sizes and a stream, nothing checked.";
  module.attr("architectures") = SUDER_CUDA_ARCHITECTURES;
  module.attr("hopper") = suder::cuda::hopper_compiled();
  suder::cuda::bind_logits(module);
  suder::cuda::bind_kl(module);
  suder::cuda::bind_fused_forward(module);
  suder::cuda::bind_fused_grad(module);
  suder::cuda::bind_kept_grad(module);
  suder::cuda::bind_sequences(module);
  suder::cuda::bind_losses(module);
  suder::cuda::bind_sample_token(module);
}
