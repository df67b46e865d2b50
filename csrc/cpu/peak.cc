#include "cpu/peak.h"

#include "cpu/isa.h"

namespace suder {

SUDER_DECLARE_ISA(void multiply_add_loop(DType dtype, int threads, double* operations))

double cpu::fma_loop(DType dtype, int threads) {
  double operations = 0.0;
  SUDER_CALL_ISA(multiply_add_loop, dtype, threads, &operations);
  return operations;
}

}  // namespace suder
