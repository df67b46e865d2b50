// The emulator's own tests: each feature does what CUDA documents, each planted bug is caught.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/tensor_core.cuh"
#include "race_log.h"
#include "test_support.h"

namespace {

// ---- features

__global__ void block_sum(const float* x, float* sums) {
  __shared__ float partial[4];
  float value = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
  }
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

void test_block_sum() {
  std::vector<float> x(3 * 128), sums(3);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  expect(report(block_sum, {3}, {128}, 0, x.data(), sums.data()).empty(), "block_sum runs clean");
  expect(sums[0] == 127 * 64 && sums[2] == 383 * 64 + 256 * 64, "block_sum is right");
}

__global__ void votes(unsigned* ballots) {
  ballots[threadIdx.x] = __ballot_sync(0xFFFFFFFFu, threadIdx.x % 3 == 0);
}

void test_votes() {
  std::vector<unsigned> ballots(32);
  expect(report(votes, {1}, {32}, 0, ballots.data()).empty(), "votes run clean");
  expect(ballots[0] == 0x49249249u && ballots[31] == ballots[0], "ballot");
}

// One warp: a 16x16 tile times an 8x16 tile by ldmatrix, cp.async and mma.sync.
template <class T>
__global__ void tile_product(const T* a, const T* b, float* c) {
  auto* shared = reinterpret_cast<T*>(suder::cuda::dynamic_shared());
  T* shared_b = shared + 16 * 16;
  const int lane = static_cast<int>(threadIdx.x);
  suder::cuda::cp_async_16(shared + lane * 8, a + lane * 8, true);
  if (lane < 16) suder::cuda::cp_async_16(shared_b + lane * 8, b + lane * 8, true);
  suder::cuda::cp_async_commit();
  suder::cuda::cp_async_wait<0>();
  __syncthreads();
  std::uint32_t fragment_a[4], fragment_b[4];
  suder::cuda::ldmatrix_x4(fragment_a, shared + lane % 16 * 16 + lane / 16 * 8);
  suder::cuda::ldmatrix_x4(fragment_b, shared_b + lane % 8 * 16 + lane / 8 % 2 * 8);
  float sums[4] = {};
  suder::cuda::mma_16816<T>(sums, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) {
    c[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = sums[i];
  }
}

template <class T, class Convert>
void test_tile_product(Convert convert, const char* name) {
  std::vector<T> a(256), b(128);
  std::vector<float> c(128);
  for (int k = 0; k < 16; ++k) {
    for (int i = 0; i < 16; ++i) a[i * 16 + k] = convert(value_a(i, k));
    for (int j = 0; j < 8; ++j) b[j * 16 + k] = convert(value_b(j, k));
  }
  expect(report(tile_product<T>, {1}, {32}, (256 + 128) * sizeof(T), a.data(), b.data(), c.data())
             .empty(),
         name);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += value_a(i, k) * value_b(j, k);
      expect(c[i * 8 + j] == sum, name);
    }
  }
}

void test_conversions() {
  // All finite halfs come back from float; ties go to even; overflow and NaN.
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const __half value{static_cast<std::uint16_t>(bits)};
    if ((bits >> 10 & 31) == 31 && (bits & 1023)) continue;  // NaN
    expect(__float2half_rn(__half2float(value)).bits == bits, "half -> float -> half");
  }
  expect(__float2half_rn(1.0f + 0x1p-11f).bits == 0x3C00, "half ties to even");
  expect(__float2half_rn(65520.0f).bits == 0x7C00, "half overflow");
  expect(__float2half_rn(0x1p-25f).bits == 0, "half underflow ties to even");
  expect(__float2bfloat16_rn(1.0f + 0x1p-8f).bits == 0x3F80, "bfloat16 ties to even");
  expect(__float2bfloat16_rn(1.0f + 0x1.8p-7f).bits == 0x3F82, "bfloat16 ties to even, up");
}

// ---- planted bugs

__global__ void barrier_for_half() {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void two_different_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void shuffle_for_half(float* x) {
  float value = static_cast<float>(threadIdx.x);
  if (threadIdx.x < 16) value = __shfl_xor_sync(0xFFFFFFFFu, value, 1);
  x[threadIdx.x] = value;
}
__global__ void shuffle_outside_mask(float* x) {
  if (threadIdx.x >= 16) return;
  x[threadIdx.x] = __shfl_xor_sync(0xFFFFu, x[threadIdx.x], 16);
}
__global__ void missing_barrier(float* x) {
  __shared__ float shared[64];
  shared[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = shared[63 - threadIdx.x];
}
__global__ void missing_second_barrier(float* x) {
  auto* shared = reinterpret_cast<float*>(suder::cuda::dynamic_shared());
  for (int i = 0; i < 2; ++i) {
    shared[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[63 - threadIdx.x];
  }
}
__global__ void warp_without_sync(float* x) {
  __shared__ float shared[32];
  shared[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = shared[31 - threadIdx.x];
}
__global__ void warp_with_sync(float* x) {
  __shared__ float shared[32];
  shared[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  x[threadIdx.x] = shared[31 - threadIdx.x];
}
__global__ void blocks_write_one_address(float* x) {
  if (threadIdx.x == 0) x[0] = static_cast<float>(blockIdx.x);
}
__global__ void dynamic_overflow(int index) {
  auto* shared = reinterpret_cast<float*>(suder::cuda::dynamic_shared());
  shared[index] = 1.0f;
}
__global__ void static_overflow(float* x, int index) {
  __shared__ float shared[16];
  shared[index] = x[0];
  __syncthreads();
  x[0] = shared[0];
}
__global__ void no_wait_for_copy(const float* x, float* y) {
  auto* shared = reinterpret_cast<float*>(suder::cuda::dynamic_shared());
  suder::cuda::cp_async_16(shared + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
  suder::cuda::cp_async_commit();
  __syncthreads();
  y[threadIdx.x] = shared[4 * threadIdx.x];
  suder::cuda::cp_async_wait<0>();
}
__global__ void copy_over_a_buffer_in_use(const float* x, float* y) {
  auto* shared = reinterpret_cast<float*>(suder::cuda::dynamic_shared());
  suder::cuda::cp_async_16(shared + 4 * threadIdx.x, x, true);
  suder::cuda::cp_async_commit();
  suder::cuda::cp_async_wait<0>();
  __syncthreads();
  y[threadIdx.x] = shared[4 * (31 - threadIdx.x)];
  suder::cuda::cp_async_16(shared + 4 * threadIdx.x, x, true);
  suder::cuda::cp_async_commit();
  suder::cuda::cp_async_wait<0>();
}

void test_divergence() {
  std::vector<float> x(64);
  expect_report(report(barrier_for_half, {1}, {64}, 0), "divergent barrier", "half a barrier");
  expect_report(report(two_different_barriers, {1}, {64}, 0), "divergent barrier", "two barriers");
  expect_report(report(shuffle_for_half, {1}, {32}, 0, x.data()), "divergent warp operation",
                "half a shuffle");
  expect_report(report(shuffle_outside_mask, {1}, {32}, 0, x.data()), "outside its mask",
                "shuffle from outside its mask");
  expect(report(barrier_for_half, {1}, {32}, 0).empty(), "the emulator recovers after a report");
}

void test_races() {
  std::vector<float> x(128), y(128);
  expect(report(warp_with_sync, {1}, {32}, 0, x.data()).empty(), "__syncwarp orders a warp");
  if (!suder::emulator::race_log::enabled()) return;
  expect_report(report(missing_barrier, {1}, {64}, 0, x.data()), "race", "missing barrier");
  expect_report(report(missing_second_barrier, {1}, {64}, 256, x.data()), "race",
                "missing second barrier");
  expect_report(report(warp_without_sync, {1}, {32}, 0, x.data()), "race", "warp without sync");
  expect_report(report(blocks_write_one_address, {2}, {32}, 0, x.data()), "race", "two blocks");
  expect_report(report(copy_over_a_buffer_in_use, {1}, {32}, 512, x.data(), y.data()), "race",
                "copy over a buffer in use");
}

void test_bounds() {
  std::vector<float> x(16), y(32);
  expect(report(dynamic_overflow, {1}, {1}, 64, 15).empty(), "last word of shared memory");
#ifdef SUDER_EMULATOR_RACES
  expect_report(report(dynamic_overflow, {1}, {1}, 64, 16), "out of bounds", "shared overflow");
  expect_report(report(dynamic_overflow, {1}, {1}, 64, -1), "out of bounds", "shared underflow");
#endif
  expect_report(report(no_wait_for_copy, {1}, {32}, 64, x.data(), y.data()), "out of bounds",
                "cp.async past the end");
  std::vector<float> source(128, 1.0f);
  expect(report(no_wait_for_copy, {1}, {32}, 512, source.data(), y.data()).empty(), "copy runs");
  expect(std::isnan(y[0]), "a copy nobody waited for has not arrived");
  expect_report(report(barrier_for_half, {0}, {32}, 0), "grid outside", "empty grid");
  expect_report(report(barrier_for_half, {1, 70000}, {32}, 0), "grid outside", "grid.y too large");
  expect_report(report(barrier_for_half, {1}, {1025}, 0), "1 to 1024", "block too large");
}

}  // namespace

// "dynamic" and "static" overrun shared memory: AddressSanitizer must end the program.
int main(int count, char** arguments) {
  if (count > 1) {
    float x = 1.0f;
    if (std::strcmp(arguments[1], "dynamic") == 0) report(dynamic_overflow, {1}, {1}, 64, 16);
    if (std::strcmp(arguments[1], "static") == 0) report(static_overflow, {1}, {1}, 0, &x, 16);
    return 0;
  }
  test_conversions();
  test_block_sum();
  test_votes();
  test_tile_product<__nv_bfloat16>([](float x) { return __float2bfloat16_rn(x); }, "bf16 product");
  test_tile_product<__half>([](float x) { return __float2half_rn(x); }, "half product");
  test_divergence();
  test_races();
  test_bounds();
  test_hopper();
  test_clusters();
  test_shared_loads();
  test_banks();
  std::printf("%s: %d failures\n",
              suder::emulator::race_log::enabled() ? "race log" : "no race log", failures);
  return failures != 0;
}
