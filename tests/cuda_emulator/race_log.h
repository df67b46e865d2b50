// The access log behind the race detector: see race_log.cc.
#pragma once

#include <cstddef>

#include "emulator.h"

namespace suder::emulator::race_log {

void begin_launch();
void begin_cluster();

// Called by the compiler's instrumentation, and by the shim for what it does on a lane's behalf.
void access(const void* address, std::size_t bytes, bool write);

// True where this build logs (the kernels were compiled with -fsanitize=thread).
bool enabled();

}  // namespace suder::emulator::race_log
