// Fibers without assembly: a stack is entered once through ucontext, afterwards control moves with
// the compiler's own setjmp and longjmp, which cost a few instructions and no system call.
#pragma once

#include <cstddef>

namespace suder::emulator {

class Fiber {
 public:
  // The entry must not return. Stacks come from one arena, so that "is this address on a stack" is
  // one comparison.
  Fiber(unsigned char* stack, std::size_t stack_bytes, void (*entry)());

  // From the scheduler's stack: runs the fiber until it calls leave().
  void enter();
  // From the fiber: back to the scheduler. The caller resumes here at the next enter().
  void leave();

 private:
  void* context_[5] = {};
  void* scheduler_context_[5] = {};
  unsigned char* stack_;
  std::size_t stack_bytes_;
  void (*entry_)();
  bool started_ = false;
};

}  // namespace suder::emulator
