// Stands in for csrc/cuda/tensor_core.cuh: the instructions written there in PTX, with the meaning
// the PTX manual (version 9.0, sections "ldmatrix", "mma.sync", "cp.async") gives them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "async_copy.h"
#include "bank_log.h"
#include "race_log.h"

namespace suder::cuda {

using suder::emulator::Site;

inline void cp_async_16(void* shared, const void* global, bool valid, Site site = Site::current()) {
  suder::emulator::check_shared(shared, 16, 16, site);
  if (valid && reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
    suder::emulator::fail("cp.async reads from an address that is not a multiple of 16", site);
  }
  suder::emulator::bank_log::access(site, shared, 16);
  suder::emulator::async_copy::issue(shared, global, valid);
}
inline void cp_async_commit() { suder::emulator::async_copy::commit(); }
template <int kPending>
void cp_async_wait() {
  suder::emulator::async_copy::wait(kPending);
}

struct LoadMatrixPayload {
  const void* row;
  std::uint32_t result[4];
};

// Lane i names row i % 8 of matrix i / 8; lane l receives elements 2(l % 4), 2(l % 4) + 1 of row
// l / 4 of each of the four 8x8 matrices.
[[gnu::no_sanitize("thread")]] inline void combine_load_matrix(void* const* payloads) {
  for (int lane = 0; lane < 32; ++lane) {
    auto* own = static_cast<LoadMatrixPayload*>(payloads[lane]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto* source = static_cast<LoadMatrixPayload*>(payloads[matrix * 8 + lane / 4]);
      std::memcpy(&own->result[matrix], static_cast<const char*>(source->row) + lane % 4 * 4, 4);
    }
  }
}

inline void ldmatrix_x4(std::uint32_t (&result)[4], const void* row, Site site = Site::current()) {
  suder::emulator::check_shared(row, 16, 16, site);
  suder::emulator::race_log::access(row, 16, false);
  suder::emulator::bank_log::access(site, row, 16);
  LoadMatrixPayload payload{row, {}};
  suder::emulator::sync_warp(0xFFFFFFFFu, suder::emulator::WarpOp::kLoadMatrix, &payload,
                             combine_load_matrix, site);
  for (int i = 0; i < 4; ++i) result[i] = payload.result[i];
}

template <typename T>
struct MatrixProductPayload {
  float* accumulator;
  const std::uint32_t *a, *b;
};

template <typename T>
[[gnu::no_sanitize("thread")]] float half_of(std::uint32_t pair, int which) {
  T value;
  value.bits = static_cast<std::uint16_t>(pair >> (16 * which));
  if constexpr (sizeof(T) == sizeof(__half) && requires { __half2float(value); }) {
    return __half2float(value);
  } else {
    return __bfloat162float(value);
  }
}

// Fragment layouts of mma.m16n8k16: with g = lane / 4 and t = lane % 4,
//   A (16x16): register r holds row g + 8 (r % 2), columns 2t + 8 (r / 2) and the next
//   B (16x8):  register r holds rows 2t + 8 r and the next of column g
//   C (16x8):  element i holds row g + 8 (i / 2), column 2t + i % 2
template <typename T>
[[gnu::no_sanitize("thread")]] void combine_matrix_product(void* const* payloads) {
  float a[16][16], b[8][16];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<MatrixProductPayload<T>*>(payloads[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < 4; ++r) {
        a[g + 8 * (r % 2)][2 * t + 8 * (r / 2) + half] = half_of<T>(own->a[r], half);
      }
      for (int r = 0; r < 2; ++r) b[g][2 * t + 8 * r + half] = half_of<T>(own->b[r], half);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto* own = static_cast<MatrixProductPayload<T>*>(payloads[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
      own->accumulator[i] += sum;
    }
  }
}

template <typename T>
void mma_16816(float (&accumulator)[4], const std::uint32_t (&a)[4], const std::uint32_t* b,
               Site site = Site::current()) {
  MatrixProductPayload<T> payload{accumulator, a, b};
  suder::emulator::sync_warp(0xFFFFFFFFu, suder::emulator::WarpOp::kMatrixProduct, &payload,
                             combine_matrix_product<T>, site);
}

__device__ inline void store_16(void* global, const std::uint32_t (&words)[4]) {
  if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
    suder::emulator::fail("a 16-byte store to an address that is not aligned");
  }
  std::memcpy(global, words, sizeof(words));
}

// The instruction may be off by 2^-22: so is this, downwards.
inline float exp2_approx(float x) {
  const float value = std::exp2(x) * (1.0f - 0x1p-22f);
  return value < 0x1p-126f ? 0.0f : value;
}

}  // namespace suder::cuda
