#include "fiber.h"

#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>

// A launch that fails abandons its fibers, and with them what their stacks own.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace suder::emulator {
namespace {

// In a function of its own: the built-in pair must not meet in one frame.
[[gnu::noinline, gnu::no_sanitize_address, noreturn]] void jump(void** context) {
  __builtin_longjmp(context, 1);
}

// AddressSanitizer keeps a notion of the current stack; these tell it that we changed it.
#ifdef __SANITIZE_ADDRESS__
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
void* scheduler_fake_stack = nullptr;

void before_switch(void** save, const void* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(save, stack, bytes);
}
void arrived_in_fiber(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_bytes);
}
#endif

void (*pending_entry)() = nullptr;

void trampoline() {
#ifdef __SANITIZE_ADDRESS__
  arrived_in_fiber(nullptr);
#endif
  pending_entry();
}

}  // namespace

Fiber::Fiber(unsigned char* stack, std::size_t stack_bytes, void (*entry)())
    : stack_(stack), stack_bytes_(stack_bytes), entry_(entry) {}

[[gnu::noinline, gnu::no_sanitize_address]] void Fiber::enter() {
#ifdef __SANITIZE_ADDRESS__
  before_switch(&scheduler_fake_stack, stack_, stack_bytes_);
#endif
  if (__builtin_setjmp(scheduler_context_) == 0) {
    if (started_) jump(context_);
    started_ = true;
    pending_entry = entry_;
    ucontext_t fresh;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stack_;
    fresh.uc_stack.ss_size = stack_bytes_;
    fresh.uc_link = nullptr;
    makecontext(&fresh, trampoline, 0);
    setcontext(&fresh);
  }
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

[[gnu::noinline, gnu::no_sanitize_address]] void Fiber::leave() {
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  before_switch(&fake_stack, scheduler_stack, scheduler_stack_bytes);
#endif
  if (__builtin_setjmp(context_) == 0) jump(scheduler_context_);
#ifdef __SANITIZE_ADDRESS__
  arrived_in_fiber(fake_stack);
#endif
}

}  // namespace suder::emulator
