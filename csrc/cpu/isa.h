// Which instruction set the kernels run with, decided at run time.
#pragma once

#include <vector>

namespace suder::cpu {

enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

const char* isa_name(Isa isa);

// Those in this build that this processor and operating system can run, slowest first.
std::vector<Isa> available_isas();

// The fastest available one, or the one named by the environment variable SUDER_CPU_ISA (looked up
// at every call). Throws std::invalid_argument if that name is unknown or cannot run here.
Isa selected_isa();

}  // namespace suder::cpu

// SUDER_DECLARE_ISA(void f(const P&)) declares f in every namespace suder::<isa>;
// SUDER_CALL_ISA(f, p) calls the one of selected_isa(). Both stand inside namespace suder.
#if defined(__x86_64__)
#define SUDER_DECLARE_ISA(...) \
  namespace portable {         \
  __VA_ARGS__;                 \
  }                            \
  namespace avx2 {             \
  __VA_ARGS__;                 \
  }                            \
  namespace avx512 {           \
  __VA_ARGS__;                 \
  }                            \
  namespace avx512bf16 {       \
  __VA_ARGS__;                 \
  }
#define SUDER_CALL_ISA(function, ...)     \
  switch (::suder::cpu::selected_isa()) { \
    case ::suder::cpu::Isa::kAvx512Bf16:  \
      avx512bf16::function(__VA_ARGS__);  \
      break;                              \
    case ::suder::cpu::Isa::kAvx512:      \
      avx512::function(__VA_ARGS__);      \
      break;                              \
    case ::suder::cpu::Isa::kAvx2:        \
      avx2::function(__VA_ARGS__);        \
      break;                              \
    case ::suder::cpu::Isa::kPortable:    \
      portable::function(__VA_ARGS__);    \
      break;                              \
  }
#else
#define SUDER_DECLARE_ISA(...) \
  namespace portable {         \
  __VA_ARGS__;                 \
  }
#define SUDER_CALL_ISA(function, ...)              \
  static_cast<void>(::suder::cpu::selected_isa()); \
  portable::function(__VA_ARGS__)
#endif
