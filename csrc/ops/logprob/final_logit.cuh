// What happens to a product (with its bias) before the softmax: the softcap, and the derivative of
// softcap and temperature. The temperature itself scales differences: see common/online_lse.h.
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

  __device__ float capped(float z) const {
    return softcap > 0.0f ? softcap * tanhf(z * inverse_softcap) : z;
  }

  // d(capped / temperature) / dz, from `capped`.
  __device__ float slope(float capped) const {
    if (softcap == 0.0f) return inverse_temperature;
    const float t = capped * inverse_softcap;
    return inverse_temperature * (1.0f - t * t);
  }

  // log p of a capped logit; one rounding, so that an lse which is off is off by the same for all.
  __device__ float log_p(float capped, float lse) const {
    return fmaf(capped, inverse_temperature, -lse);
  }
};

}  // namespace suder::cuda
