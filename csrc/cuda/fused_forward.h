// Entry point of the fused forward: log p(target) of softmax(hidden @ weight^T + bias) with logits
// that never leave the registers. All pointers are device memory.
#pragma once

#include <cstdint>

#include "cuda/kept_exps.h"
#include "suder/types.h"

namespace suder::cuda {

using Stream = std::uintptr_t;  // a cudaStream_t; 0 is the default stream

struct FusedForward {
  DType dtype = DType::kBFloat16;      // bfloat16 or float16
  ConstMatrix hidden;                  // [N, D], D a multiple of 8, rows 16-byte aligned
  ConstMatrix weight;                  // [V, D] likewise
  const void* bias = nullptr;          // [V], or absent
  DType bias_dtype = DType::kFloat32;  // or `dtype`
  const std::int64_t* target = nullptr;
  std::int64_t ignore_index = -100;
  float temperature = 1.0f;
  float softcap = 0.0f;        // 0: none
  float* workspace = nullptr;  // fused_forward_workspace(N, V) floats
  float* logprob = nullptr;
  float* lse = nullptr;
  float* entropy = nullptr;  // or absent
  KeptExps kept;             // room for those of the first tokens, or for none
  bool hopper = false;       // by wgmma: compute capability 9.0 only, where hopper_compiled()
};

std::int64_t fused_forward_workspace(std::int64_t tokens, std::int64_t vocab);
void fused_forward(const FusedForward& params, Stream stream);
// Whether `kept` may have tokens on the current device.
bool fused_forward_keeps(bool hopper);

bool hopper_compiled();
void hopper_forward(const FusedForward& params, Stream stream);

}  // namespace suder::cuda
