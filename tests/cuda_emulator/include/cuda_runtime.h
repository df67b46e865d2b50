// Stands in for CUDA's own header of this name when kernels are compiled for the emulator.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (::suder::emulator::builtins().thread_index)
#define blockIdx (::suder::emulator::builtins().block_index)
#define blockDim (::suder::emulator::builtins().block_size)
#define gridDim (::suder::emulator::builtins().grid_size)

using std::isfinite;
using std::isnan;

using cudaStream_t = void*;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace suder::emulator {

template <typename T>
struct ShufflePayload {
  T value, result;
  int source;  // the lane to read from
};

template <typename T>
[[gnu::no_sanitize("thread")]] void combine_shuffle(void* const* payloads) {
  for (int lane = 0; lane < 32; ++lane) {
    auto* own = static_cast<ShufflePayload<T>*>(payloads[lane]);
    if (!own) continue;
    auto* from = static_cast<ShufflePayload<T>*>(payloads[own->source & 31]);
    if (!from) fail("a shuffle reads from a lane outside its mask");
    own->result = from->value;
  }
}

template <typename T>
T shuffle(unsigned mask, T value, int source, Site site) {
  ShufflePayload<T> payload{value, value, source};
  sync_warp(mask, WarpOp::kShuffle, &payload, combine_shuffle<T>, site);
  return payload.result;
}

struct VotePayload {
  bool predicate;
  unsigned ballot;
};

[[gnu::no_sanitize("thread")]] inline void combine_vote(void* const* payloads) {
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    auto* own = static_cast<VotePayload*>(payloads[lane]);
    if (own && own->predicate) ballot |= 1u << lane;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (payloads[lane]) static_cast<VotePayload*>(payloads[lane])->ballot = ballot;
  }
}

inline int lane_index() {
  const dim3 t = builtins().thread_index, size = builtins().block_size;
  return static_cast<int>((t.x + size.x * (t.y + size.y * t.z)) % 32);
}

}  // namespace suder::emulator

inline void __syncthreads(suder::emulator::Site site = suder::emulator::Site::current()) {
  suder::emulator::sync_block(site);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu,
                       suder::emulator::Site site = suder::emulator::Site::current()) {
  suder::emulator::sync_warp(mask, suder::emulator::WarpOp::kSync, nullptr, nullptr, site);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane,
              suder::emulator::Site site = suder::emulator::Site::current()) {
  return suder::emulator::shuffle(mask, value, lane, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes,
                  suder::emulator::Site site = suder::emulator::Site::current()) {
  return suder::emulator::shuffle(mask, value, suder::emulator::lane_index() ^ lanes, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int delta,
                   suder::emulator::Site site = suder::emulator::Site::current()) {
  const int lane = suder::emulator::lane_index();
  return suder::emulator::shuffle(mask, value, lane + delta < 32 ? lane + delta : lane, site);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate,
                              suder::emulator::Site site = suder::emulator::Site::current()) {
  suder::emulator::VotePayload payload{predicate, 0};
  suder::emulator::sync_warp(mask, suder::emulator::WarpOp::kVote, &payload,
                             suder::emulator::combine_vote, site);
  return payload.ballot;
}
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) {
  return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value));
}
inline bool __any_sync(unsigned mask, bool predicate,
                       suder::emulator::Site site = suder::emulator::Site::current()) {
  return __ballot_sync(mask, predicate, site) != 0;
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
