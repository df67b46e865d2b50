// For tests built once per instruction set.
#pragma once

#include <cstdio>
#include <cstring>

#include "cpu/isa.h"

#define SUDER_STRING_OF(x) #x
#define SUDER_STRING(x) SUDER_STRING_OF(x)

inline bool can_run_this_isa() {
  for (suder::cpu::Isa isa : suder::cpu::available_isas()) {
    if (std::strcmp(suder::cpu::isa_name(isa), SUDER_STRING(SUDER_ISA)) == 0) return true;
  }
  std::printf("skipped: this machine does not run %s\n", SUDER_STRING(SUDER_ISA));
  return false;
}
