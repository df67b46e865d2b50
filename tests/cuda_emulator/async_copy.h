// cp.async: copies that reach shared memory only when their thread waits for them, so that a kernel
// that forgets to wait, or overwrites a buffer still in use, computes something wrong or is caught.
#pragma once

namespace suder::emulator::async_copy {

// 16 bytes; with valid == false the source is not read and zeros arrive.
void issue(void* shared, const void* global, bool valid);
void commit();
// Completes all but the newest `pending` committed groups.
void wait(int pending);
void forget_all();

}  // namespace suder::emulator::async_copy
