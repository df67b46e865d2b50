// The main() of the tests built once per instruction set. It is itself compiled for every
// processor: under -mavx512f even the first lines of a main() may hold an instruction that an older
// machine does not know.
#include <cstdio>
#include <cstring>

#include "check.h"
#include "cpu/isa.h"
#include "isa_check.h"

#define SUDER_STRING_OF(x) #x
#define SUDER_STRING(x) SUDER_STRING_OF(x)

int main() {
  for (suder::cpu::Isa isa : suder::cpu::available_isas()) {
    if (std::strcmp(suder::cpu::isa_name(isa), SUDER_STRING(SUDER_ISA)) != 0) continue;
    check_isa();
    return failures();
  }
  std::printf("skipped: this machine does not run %s\n", SUDER_STRING(SUDER_ISA));
  return 0;
}
