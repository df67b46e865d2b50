// What csrc/cuda/compiler/find.cmake compiles and links to see whether nvcc works: host and device
// code in C++20, the headers that the kernels include, the CUDA runtime.
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>
#include <tuple>

template <typename T>
  requires(sizeof(T) == 4)
__global__ void probe(T* value) {
  *value = T{1};
}

int main() {
  int devices = 0;
  const auto count = [&]<typename T>(T* value) { return cudaGetDeviceCount(value); };
  const std::string name = cudaGetErrorString(count(&devices));
  return reinterpret_cast<void*>(probe<float>) == nullptr ? static_cast<int>(name.size()) : 0;
}
