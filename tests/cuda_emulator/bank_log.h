// Bank conflicts of dynamic shared memory, counted where accesses are logged (race_log.h): 32 banks
// of four bytes serve a warp's access in one wave, of 8 bytes in two (16 lanes each), of 16 bytes
// in four; every further word that a wave wants of one bank is a conflict. Copies of TMA and
// operands of wgmma go by the hardware's swizzle and are not counted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator.h"

namespace suder::emulator::bank_log {

// The running thread's access by the instruction at `code`.
void access(const void* code, const void* address, std::size_t bytes);
// The same where the shim stands for the instruction.
void access(Site site, const void* address, std::size_t bytes);

// All lanes of the warp have come to the same place: what they did since the last one is compared.
// Lanes that take turns at one instruction are told apart by how often each was there.
void end_interval(unsigned warp);

// All since the last call: accesses of warps, and their conflicts.
struct Count {
  std::uint64_t accesses = 0, conflicts = 0;
};
Count take();

}  // namespace suder::emulator::bank_log
