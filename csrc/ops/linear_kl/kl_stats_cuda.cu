// One read of each row of both sides' logits: their online divergence. One block a row; threads
// join at the end only.
#include "common/online_kl.h"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tensor_core.cuh"
#include "ops/linear_kl/kl_pair.cuh"

namespace suder::cuda {
namespace {

constexpr int kMostThreads = 256, kPacks = 4;
constexpr float kLog2E = 1.44269504f;

struct StatsArguments {
  KlPairs pairs;
  std::int64_t tokens;
  const std::int64_t* target;
  std::int64_t ignore_index;
  bool first, last;
  float* online;
  float* kl;
  float* state;
};

// A pack joins the thread's state: its maxima first, then one exponential a logit.
__device__ void add_pack(OnlineKl& s, const float (&z)[kKlPack], const float (&y)[kKlPack],
                         float inverse_temperature) {
  float top = s.max, ref_top = s.ref_max;
#pragma unroll
  for (int i = 0; i < kKlPack; ++i) {
    top = fmaxf(top, z[i]);  // never NaN
    ref_top = fmaxf(ref_top, y[i]);
  }
  if (top > s.max || ref_top > s.ref_max) s = relative_to(s, top, ref_top, inverse_temperature);
  const float max = top == -INFINITY ? 0.0f : top;
  const float ref_max = ref_top == -INFINITY ? 0.0f : ref_top;
#pragma unroll
  for (int i = 0; i < kKlPack; ++i) {
    const float a = (z[i] - max) * inverse_temperature;
    const float b = (y[i] - ref_max) * inverse_temperature;
    const float e = exp2_approx(a * kLog2E);
    s.sum += e;
    s.ref_sum += exp2_approx(b * kLog2E);
    s.weighted = fmaf(e, bounded(a) - bounded(b), s.weighted);
    if (y[i] == -INFINITY && z[i] != -INFINITY) s.impossible = INFINITY;
  }
}

// The block's states joined; valid in thread 0. `shared` has four floats a warp.
__device__ OnlineKl reduce_block(OnlineKl s, float4* shared, float inverse_temperature) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  float max = max_of_warp(s.max), ref_max = max_of_warp(s.ref_max);
  if (threadIdx.x % kWarpSize == 0) shared[warp] = {max, ref_max, 0.0f, 0.0f};
  __syncthreads();
  for (int i = 0; i < warps; ++i) {
    max = fmaxf(max, shared[i].x);
    ref_max = fmaxf(ref_max, shared[i].y);
  }
  __syncthreads();
  s = relative_to(s, max, ref_max, inverse_temperature);
  const float4 sums = {reduce_warp(s.sum), reduce_warp(s.ref_sum), reduce_warp(s.weighted),
                       reduce_warp(s.impossible)};
  if (threadIdx.x % kWarpSize == 0) shared[warp] = sums;
  __syncthreads();
  OnlineKl result = {max, ref_max};
  for (int i = 0; i < warps; ++i) {
    result.sum += shared[i].x;
    result.ref_sum += shared[i].y;
    result.weighted += shared[i].z;
    result.impossible += shared[i].w;
  }
  return result;
}

__global__ void __launch_bounds__(kMostThreads, 4) kl_stats_kernel(StatsArguments a) {
  const std::int64_t row = blockIdx.x;
  const float inverse_temperature = a.pairs.final_logit.inverse_temperature;
  const std::int64_t step = std::int64_t{blockDim.x} * kKlPack;
  OnlineKl s;
  for (std::int64_t column = threadIdx.x * kKlPack; column < a.pairs.cols; column += step) {
    float z[kKlPack], y[kKlPack];
    a.pairs.load(row, column, z, y);
    add_pack(s, z, y, inverse_temperature);
  }
  __shared__ float4 shared[kMostThreads / kWarpSize];
  s = reduce_block(s, shared, inverse_temperature);
  if (threadIdx.x != 0) return;
  float* online = a.online + row * kOnlineKlFloats;
  if (!a.first) {
    const OnlineKl before = {online[0], online[1], online[2], online[3], online[4], online[5]};
    s = merge(before, s, inverse_temperature);
  }
  if (!a.last) {
    online[0] = s.max;
    online[1] = s.ref_max;
    online[2] = s.sum;
    online[3] = s.ref_sum;
    online[4] = s.weighted;
    online[5] = s.impossible;
    return;
  }
  const bool ignored = a.target[row] == a.ignore_index;
  a.kl[row] = ignored ? 0.0f : divergence(s);
  float* state = a.state + row * kKlStateFloats;
  state[0] = s.max;
  state[1] = logf(s.sum);
  state[2] = s.ref_max;
  state[3] = logf(s.ref_sum);
}

}  // namespace

void kl_stats(const KlStats& p, Stream stream) {
  if (p.tokens == 0 || p.cols == 0) return;
  const StatsArguments arguments = {KlPairs(p), p.tokens, p.target, p.ignore_index, p.first,
                                    p.last,     p.online, p.kl,     p.state};
  launch(kl_stats_kernel, {static_cast<unsigned>(p.tokens)},
         {threads_for<float>(p.cols, kPacks, kMostThreads)}, 0, stream, arguments);
}

}  // namespace suder::cuda
