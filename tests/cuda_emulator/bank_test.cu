// What the emulator counts of bank conflicts: the patterns of the programming guide.
#include "bank_log.h"
#include "cuda/tensor_core.cuh"
#include "race_log.h"
#include "test_support.h"

namespace {

// Lane i reads the word i * stride.
__global__ void words(float* out, int stride) {
  const auto* shared = reinterpret_cast<const float*>(suder::cuda::dynamic_shared());
  out[threadIdx.x] = shared[static_cast<int>(threadIdx.x) * stride];
}

// Only every fourth lane, a word of its own row.
__global__ void some_lanes(float* out, int stride) {
  const auto* shared = reinterpret_cast<const float*>(suder::cuda::dynamic_shared());
  if (threadIdx.x % 4 == 0) out[threadIdx.x] = shared[static_cast<int>(threadIdx.x) / 4 * stride];
}

// Lane i names row i of 16 bytes, rows stride bytes apart.
__global__ void matrices(int stride) {
  unsigned char* shared = suder::cuda::dynamic_shared();
  std::uint32_t result[4];
  suder::cuda::ldmatrix_x4(result, shared + static_cast<int>(threadIdx.x) * stride);
}

__global__ void copies(const float* from, int stride) {
  unsigned char* shared = suder::cuda::dynamic_shared();
  suder::cuda::cp_async_16(shared + static_cast<int>(threadIdx.x) * stride, from, true);
  suder::cuda::cp_async_commit();
  suder::cuda::cp_async_wait<0>();
}

template <class Kernel, class... A>
void expect_conflicts(std::uint64_t conflicts, const char* what, Kernel kernel, A... arguments) {
  using suder::emulator::bank_log::take;
  take();
  suder::cuda::launch(kernel, {1}, {32}, 8192, 0, arguments...);
  const auto counted = take();
  expect(counted.accesses == 1 && counted.conflicts == conflicts, what);
}

}  // namespace

void test_banks() {
  if (!suder::emulator::race_log::enabled()) return;  // this build logs nothing
  alignas(16) static const float source[4] = {};
  static float out[32];
  expect_conflicts(0, "neighbouring words", words, out, 1);
  expect_conflicts(0, "the same word", words, out, 0);
  expect_conflicts(1, "every second word", words, out, 2);
  expect_conflicts(31, "one bank", words, out, 32);
  expect_conflicts(0, "rows a word longer than the banks", words, out, 33);
  expect_conflicts(0, "eight lanes, rows of three words", some_lanes, out, 3);
  expect_conflicts(7, "eight lanes, one bank", some_lanes, out, 32);
  expect_conflicts(0, "matrices, rows side by side", matrices, 16);
  expect_conflicts(28, "matrices, rows of 128 bytes", matrices, 128);
  expect_conflicts(12, "matrices, rows of 64 bytes", matrices, 64);
  expect_conflicts(0, "copies side by side", copies, source, 16);
  expect_conflicts(4, "copies with gaps", copies, source, 32);
}
