#include "cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace suder::cpu {
namespace {

constexpr Isa kAll[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
bool runs_here(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx512Bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return isa == Isa::kPortable;
#endif
}

std::string available_names() {
  std::string names;
  for (Isa isa : available_isas()) {
    if (!names.empty()) names += ", ";
    names += isa_name(isa);
  }
  return names;
}

Isa parse(std::string_view name) {
  for (Isa isa : kAll) {
    if (name != isa_name(isa)) continue;
    if (runs_here(isa)) return isa;
    throw std::invalid_argument("SUDER_CPU_ISA=" + std::string(name) +
                                ": this machine cannot run it; it can run " + available_names());
  }
  throw std::invalid_argument("SUDER_CPU_ISA=" + std::string(name) +
                              ": no such instruction set; use one of " + available_names() +
                              ", or leave the variable unset");
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (Isa isa : kAll) {
    if (runs_here(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa selected_isa() {
  static const Isa best = available_isas().back();
  const char* forced = std::getenv("SUDER_CPU_ISA");
  return forced == nullptr || *forced == '\0' ? best : parse(forced);
}

}  // namespace suder::cpu
