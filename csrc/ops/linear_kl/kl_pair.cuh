// One pack of both sides' final logits, capped and not yet divided by the temperature.
#pragma once

#include "cuda/kl.h"
#include "cuda/vec.cuh"
#include "ops/logprob/final_logit.cuh"

namespace suder::cuda {

inline constexpr int kKlPack = kPack<float>;

struct KlPairs {
  const float* logits;
  const float* ref_logits;
  std::int64_t cols, stride, ref_stride;
  const float* bias;
  const float* ref_bias;
  bool aligned;
  FinalLogit final_logit;

  explicit KlPairs(const KlTile& p)
      : logits(p.logits),
        ref_logits(p.ref_logits),
        cols(p.cols),
        stride(p.stride),
        ref_stride(p.ref_stride),
        bias(p.bias),
        ref_bias(p.ref_bias),
        aligned(aligned_rows<float>(p.logits, p.stride) &&
                aligned_rows<float>(p.ref_logits, p.ref_stride)),
        final_logit(p.temperature, p.softcap) {}

  // -inf past the last column, of both.
  __device__ void load(std::int64_t row, std::int64_t column, float (&z)[kKlPack],
                       float (&y)[kKlPack]) const {
    load_pack(logits + row * stride, column, cols, aligned, -INFINITY, z);
    load_pack(ref_logits + row * ref_stride, column, cols, aligned, -INFINITY, y);
    finish(bias, column, z);
    finish(ref_bias, column, y);
  }

 private:
  __device__ void finish(const float* own_bias, std::int64_t column, float (&z)[kKlPack]) const {
#pragma unroll
    for (int i = 0; i < kKlPack; ++i) {
      if (column + i >= cols) continue;
      z[i] = final_logit.capped(own_bias != nullptr ? z[i] + own_bias[column + i] : z[i]);
    }
  }
};

}  // namespace suder::cuda
