#include "cpu/gemm.h"
#include "cpu/parallel.h"

namespace suder::SUDER_ISA {
namespace {

constexpr std::int64_t kRounds = 1 << 20;

// Zeros that the compiler cannot know to be equal: it would merge the chains.
volatile float zeros[kWidth];

Vec unknown_zero() {
  Vec v = {};
  for (int i = 0; i < kWidth; ++i) v[i] = zeros[i];
  return v;
}

// As many chains as the micro-kernel has, to hide the same latency.
template <class Units>
void one_thread() {
  constexpr int kChains = kRows * kVectors;
  Vec sum[kChains];
  for (Vec& chain : sum) chain = unknown_zero();
  const Vec a = unknown_zero(), b = unknown_zero();
  for (std::int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) sum[i] = Units::multiply_add(a, b, sum[i]);
  }
  float total = 0.0f;
  for (const Vec& chain : sum) total += horizontal_sum(chain);
  volatile float sink [[maybe_unused]] = total;
}

}  // namespace

void multiply_add_loop(DType dtype, int threads, double* operations) {
  dispatch_dtype(dtype, [&]<class T>() {
    using Units = UnitsOf<T>;
    cpu::parallel_for(threads, threads, [](std::int64_t, int) { one_thread<Units>(); });
    *operations = 2.0 * Units::kElements * kWidth * kRows * kVectors * kRounds * threads;
  });
}

}  // namespace suder::SUDER_ISA
