// The bias gradient: the sum of each column of a tile of logit gradients. A block has 32 columns;
// each of its 8 warps adds every 8th row, then the 8 sums are added in order.
#include "cuda/launch.cuh"
#include "cuda/logits.h"
#include "cuda/reduce.cuh"
#include "cuda/vec.cuh"

namespace suder::cuda {
namespace {

constexpr int kRowGroups = 8;

template <typename T>
__global__ void __launch_bounds__(kWarpSize* kRowGroups)
    column_sum_kernel(const T* values, std::int64_t rows, std::int64_t cols, std::int64_t stride,
                      float* sums) {
  __shared__ float shared[kRowGroups][kWarpSize];
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int group = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarpSize + lane;
  float sum = 0.0f;
  if (column < cols) {
#pragma unroll 8
    for (std::int64_t row = group; row < rows; row += kRowGroups) {
      sum += to_float(values[row * stride + column]);
    }
  }
  shared[group][lane] = sum;
  __syncthreads();
  if (group != 0 || column >= cols) return;
  for (int i = 1; i < kRowGroups; ++i) sum += shared[i][lane];
  sums[column] += sum;
}

}  // namespace

void column_sum(const ColumnSum& p, Stream stream) {
  if (p.values.cols == 0) return;
  const auto blocks = static_cast<unsigned>((p.values.cols + kWarpSize - 1) / kWarpSize);
  dispatch_dtype(p.dtype, [&]<typename T>() {
    launch(column_sum_kernel<T>, {blocks}, {kWarpSize * kRowGroups}, 0, stream,
           static_cast<const T*>(p.values.data), p.values.rows, p.values.cols, p.values.stride,
           p.sums);
  });
}

}  // namespace suder::cuda
