// A token of a whole row of logits. One block a row, each warp one part of the vocabulary: a read
// of the row for the parts' log-sum-exps, then on to the part that the uniform number falls into,
// to the warp's share of it, to the token; the further reads find the row in the cache.
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/vec.cuh"
#include "ops/logprob/add_pack.cuh"
#include "ops/sample_token/warp_crossing.cuh"

namespace suder::cuda {
namespace {

constexpr int kMostThreads = 512, kPacks = 4, kMostWarps = kMostThreads / kWarpSize;

template <typename T>
struct SampleArguments {
  const T* logits;
  std::int64_t cols, stride;
  const float* bias;
  bool aligned;
  float inverse_temperature;
  const double* uniform;
  std::int64_t* token;
  float *logprob, *entropy;
};

// Columns [begin, end) in as many parts as there are warps, of whole steps each.
struct Parts {
  std::int64_t begin, end, each;

  __device__ Parts(std::int64_t first, std::int64_t last, std::int64_t step) {
    const std::int64_t parts = blockDim.x / kWarpSize, wanted = (last - first + parts - 1) / parts;
    begin = first;
    end = last;
    each = (wanted + step - 1) / step * step;
  }
  __device__ std::int64_t from(int part) const {
    const std::int64_t column = begin + part * each;
    return column < end ? column : end;
  }
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads, 2) sample_token_kernel(SampleArguments<T> a) {
  const std::int64_t row = blockIdx.x;
  const T* logits = a.logits + row * a.stride;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  const float inverse = a.inverse_temperature, scale = inverse * kLog2E;
  const bool greedy = a.uniform == nullptr;

  __shared__ OnlineLse states[kMostWarps];
  const Parts parts(0, a.cols, std::int64_t{kWarpSize} * kPack<T>);
  const std::int64_t end = parts.from(warp + 1);
  OnlineLse state;
#pragma unroll 4
  for (std::int64_t column = parts.from(warp) + lane * kPack<T>; column < end;
       column += kWarpSize * kPack<T>) {
    float z[kPack<T>];
    load_pack(logits, column, end, a.aligned, -INFINITY, z);
    if (a.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) z[i] += column + i < end ? a.bias[column + i] : 0.0f;
    }
    add_pack<true>(state, z, scale, inverse);
  }
  const float part_max = max_of_warp(state.max);
  if (state.max != -INFINITY) state = relative_to(state, part_max, inverse);
  state = {part_max, reduce_warp(state.sum), reduce_warp(state.weighted)};
  if (lane == 0) states[warp] = state;
  __syncthreads();

  // Every warp for itself from here: the same numbers, the same bits.
  const OnlineLse own = lane < warps ? states[lane] : OnlineLse{};
  const float max = max_of_warp(own.max);
  // Of a part's maximum the same bits as of that logit: a part counts if one of its logits does.
  const auto weight = [&](float z) {
    return greedy ? (z == max ? 1.0f : 0.0f) : exp2_approx((z - max) * scale);
  };
  const float shift = (own.max - max) * inverse, rescale = exp2_approx((own.max - max) * scale);
  const double sum = reduce_warp(static_cast<double>(own.sum) * rescale);
  const double weighted =
      reduce_warp(rescale > 0.0f ? (own.weighted + double{own.sum} * shift) * rescale : 0.0);
  if (!(sum > 0.0) || max == INFINITY) {  // NaN as well
    if (threadIdx.x == 0) {
      a.token[row] = 0;
      a.logprob[row] = a.entropy[row] = NAN;
    }
    return;
  }
  double level = greedy ? 0.0 : a.uniform[row] * sum;
  WarpCrossing at = cross(greedy ? weight(own.max) : double{own.sum} * rescale, level);
  level -= at.before;

  const auto logit = [&](std::int64_t column) {
    return to_float(logits[column]) + (a.bias != nullptr ? a.bias[column] : 0.0f);
  };
  __shared__ float sums[kMostWarps];
  const Parts shares(parts.from(at.lane), parts.from(at.lane + 1), kWarpSize);
  float share = 0.0f;
  for (std::int64_t column = shares.from(warp) + lane; column < shares.from(warp + 1);
       column += kWarpSize) {
    share += weight(logit(column));
  }
  share = reduce_warp(share);
  if (lane == 0) sums[warp] = share;
  __syncthreads();
  if (warp != 0) return;
  at = cross(lane < warps ? sums[lane] : 0.0f, level);
  level -= at.before;

  const std::int64_t last = shares.from(at.lane + 1);
  std::int64_t token = 0;
  for (std::int64_t first = shares.from(at.lane); first < last; first += kWarpSize) {
    at = cross(first + lane < last ? weight(logit(first + lane)) : 0.0f, level);
    if (at.lane >= 0) token = first + at.lane;
    if (at.found) break;
    level -= at.total;
  }
  if (lane != 0) return;
  const float log_sum = logf(static_cast<float>(sum));
  const float log_p = (logit(token) - max) * inverse - log_sum;
  a.token[row] = token;
  a.logprob[row] = log_p > 0.0f ? 0.0f : log_p;
  a.entropy[row] = log_sum - static_cast<float>(weighted) / static_cast<float>(sum);
}

template <typename T>
void run(const SampleToken& p, const float* bias, Stream stream) {
  const T* logits = static_cast<const T*>(p.logits.data);
  const SampleArguments<T> arguments = {logits,
                                        p.logits.cols,
                                        p.logits.stride,
                                        bias,
                                        aligned_rows<T>(logits, p.logits.stride),
                                        1.0f / p.temperature,
                                        p.uniform,
                                        p.token,
                                        p.logprob,
                                        p.entropy};
  launch(sample_token_kernel<T>, {static_cast<unsigned>(p.logits.rows)},
         {threads_for<T>(p.logits.cols, kPacks, kMostThreads)}, 0, stream, arguments);
}

}  // namespace

void sample_token(const SampleToken& p, const float* bias, Stream stream) {
  if (p.top_k != 0 || p.top_p != 1.0) {
    throw std::invalid_argument("sample_token: on CUDA top_k and top_p are not the kernel's");
  }
  if (p.logits.rows == 0) return;
  dispatch_dtype(p.dtype, [&]<typename T>() { run<T>(p, bias, stream); });
}

}  // namespace suder::cuda
