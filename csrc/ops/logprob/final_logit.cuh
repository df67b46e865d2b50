// What happens to a product before the softmax: bias, softcap, temperature; and its derivative.
#pragma once

#include <cuda_runtime.h>

namespace suder::cuda {

struct FinalLogit {
  float inverse_temperature;
  float softcap;  // 0: none
  float inverse_softcap;

  FinalLogit(float temperature, float cap)
      : inverse_temperature(1.0f / temperature),
        softcap(cap),
        inverse_softcap(cap > 0.0f ? 1.0f / cap : 0.0f) {}

  // `slope` becomes d(result) / d(z).
  __device__ float operator()(float z, float& slope) const {
    slope = inverse_temperature;
    if (softcap > 0.0f) {
      const float t = tanhf(z * inverse_softcap);
      slope *= 1.0f - t * t;
      z = softcap * t;
    }
    return z * inverse_temperature;
  }
  __device__ float operator()(float z) const {
    float slope;
    return (*this)(z, slope);
  }
};

}  // namespace suder::cuda
