#include "cpu/peak.h"

#include <chrono>

#include "cpu/isa.h"

namespace suder {

SUDER_DECLARE_ISA(void multiply_add_loop(DType dtype, int threads, double* operations))

namespace cpu {

double fma_peak(DType dtype, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  double operations = 0.0, elapsed = 0.0;
  const auto start = Clock::now();
  do {
    double some = 0.0;
    SUDER_CALL_ISA(multiply_add_loop, dtype, threads, &some);
    operations += some;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (elapsed < seconds);
  return operations / elapsed;
}

}  // namespace cpu
}  // namespace suder
