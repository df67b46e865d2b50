#include "emulator.h"

#include <sanitizer/asan_interface.h>

#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "async_copy.h"
#include "async_order.h"
#include "fiber.h"
#include "mbarriers.h"
#include "race_log.h"
#include "warp_groups.h"

namespace suder::emulator {
namespace {

constexpr unsigned kWarp = 32, kMaxThreads = 1024;
constexpr std::size_t kMaxShared = 232448;  // sm_90; launches above it fail on every GPU
// Where a block's dynamic shared memory begins: its alignment, and its first PTX address.
constexpr std::size_t kSharedBase = 1024;
// Bytes around shared memory that nobody may touch; AddressSanitizer brings its own.
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kGuard = 0;
constexpr std::size_t kStackBytes = 256 * 1024;
#else
constexpr std::size_t kGuard = 4096;
constexpr std::size_t kStackBytes = 64 * 1024;
#endif

enum class State { kReady, kAtBarrier, kAtWarpOp, kWaiting, kDone };

struct FreeAligned {
  void operator()(unsigned char* memory) const {
    ::operator delete[](memory, std::align_val_t{kSharedBase});
  }
};

struct Thread {
  std::unique_ptr<Fiber> fiber;
  State state = State::kDone;
  Site site;
  const std::function<bool()>* ready = nullptr;  // what a kWaiting thread waits for
};

struct PendingWarpOp {
  unsigned mask = 0, arrived = 0;
  WarpOp op = WarpOp::kSync;
  Site site;
  void* payloads[kWarp] = {};
};

struct Warp {
  std::vector<PendingWarpOp> pending;
  unsigned interval = 0;
};

// One machine a process: kernels run one launch at a time.
struct Machine {
  std::unique_ptr<unsigned char[]> stacks;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::unique_ptr<unsigned char[], FreeAligned> shared;
  std::size_t shared_bytes = 0;
  const std::function<void()>* body = nullptr;
  Builtins builtins;
  Position position = {};
  unsigned waiting_at_barrier = 0, block_threads = 0;
  std::string error;
  bool reverse = false;
};
Machine machine;

std::string place(const Site& site) {
  const char* name = std::strrchr(site.file_name(), '/');
  return std::string(name ? name + 1 : site.file_name()) + ":" + std::to_string(site.line());
}

std::string who() {
  return " (thread " + std::to_string(machine.position.thread) + ", block " +
         std::to_string(machine.position.block) + ")";
}

Thread& current() { return machine.threads[machine.position.thread]; }

// A fiber serves launch after launch: making one costs system calls, resuming one does not.
void fiber_main() {
  for (;;) {
    (*machine.body)();
    current().state = State::kDone;
    current().fiber->leave();
  }
}

void make_fibers() {
  if (!machine.stacks) machine.stacks.reset(new unsigned char[kStackBytes * kMaxThreads]);
  // Fibers that a failed launch left behind had marked parts of their stacks.
  ASAN_UNPOISON_MEMORY_REGION(machine.stacks.get(), kStackBytes * kMaxThreads);
  machine.threads = std::vector<Thread>(kMaxThreads);
  for (unsigned i = 0; i < kMaxThreads; ++i) {
    machine.threads[i].fiber =
        std::make_unique<Fiber>(machine.stacks.get() + i * kStackBytes, kStackBytes, fiber_main);
  }
}

void give_way(State state, Site site) {
  Thread& self = current();
  self.state = state;
  self.site = site;
  self.fiber->leave();
}

void enter(unsigned index) {
  const dim3 size = machine.builtins.block_size;
  machine.builtins.thread_index = {index % size.x, index / size.x % size.y,
                                   index / (size.x * size.y)};
  machine.position.thread = index;
  machine.position.warp = index / kWarp;
  machine.position.warp_interval = machine.warps[index / kWarp].interval;
  machine.position.active = true;
  machine.threads[index].fiber->enter();
  machine.position.active = false;
}

std::string describe_stuck_block() {
  for (unsigned i = 0; i < machine.block_threads; ++i) {
    const Thread& thread = machine.threads[i];
    if (thread.state == State::kWaiting) {
      return "deadlock: nothing can end the wait at " + place(thread.site) + " (thread " +
             std::to_string(i) + ", block " + std::to_string(machine.position.block) + ")";
    }
  }
  for (unsigned i = 0; i < machine.block_threads; ++i) {
    const Thread& thread = machine.threads[i];
    if (thread.state == State::kAtWarpOp) {
      return "divergent warp operation at " + place(thread.site) +
             ": lanes named in its mask never came (thread " + std::to_string(i) + ", block " +
             std::to_string(machine.position.block) + ")";
    }
  }
  for (unsigned i = 0; i < machine.block_threads; ++i) {
    const Thread& thread = machine.threads[i];
    if (thread.state == State::kAtBarrier) {
      return "divergent barrier at " + place(thread.site) + ": thread " + std::to_string(i) +
             " waits and others have left the kernel (block " +
             std::to_string(machine.position.block) + ")";
    }
  }
  return "no thread can run";
}

void run_block(unsigned threads) {
  machine.block_threads = threads;
  machine.waiting_at_barrier = 0;
  machine.warps.assign((threads + kWarp - 1) / kWarp, Warp{});
  // Quiet NaNs in every format: a value that was never written must not look like a result.
  std::memset(machine.shared.get(), 0xFF, machine.shared_bytes + 2 * kGuard);
  for (unsigned i = 0; i < threads; ++i) machine.threads[i].state = State::kReady;
  for (unsigned done = 0; done < threads;) {
    bool moved = false;
    done = 0;
    for (unsigned turn = 0; turn < threads; ++turn) {
      const unsigned i = machine.reverse ? threads - 1 - turn : turn;
      Thread& thread = machine.threads[i];
      if (thread.state == State::kWaiting && (*thread.ready)()) thread.state = State::kReady;
      if (thread.state == State::kReady) {
        enter(i);
        moved = true;
        if (!machine.error.empty()) return;
      }
      done += machine.threads[i].state == State::kDone;
    }
    if (!moved && done < threads) {
      machine.error = describe_stuck_block();
      return;
    }
  }
}

std::string check_limits(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads) return "a block has 1 to 1024 threads";
  if (grid.x == 0 || grid.x > 0x7FFFFFFFu || grid.y == 0 || grid.y > 65535 || grid.z == 0 ||
      grid.z > 65535) {
    return "grid outside [1, 2^31) x [1, 65535] x [1, 65535]";
  }
  if (shared_bytes > kMaxShared) return "a block has at most 232448 bytes of shared memory";
  return "";
}

}  // namespace

const Builtins& builtins() { return machine.builtins; }
const Position& position() { return machine.position; }
unsigned char* shared_memory() { return machine.shared.get() + kGuard; }
std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(pointer) - shared_memory() +
                                    kSharedBase);
}
const unsigned char* shared_pointer(std::uint32_t address) {
  return shared_memory() + address - kSharedBase;
}
SharedRange shared_range() { return {shared_memory(), machine.shared_bytes}; }
void set_reverse_order(bool reverse) { machine.reverse = reverse; }

bool on_fiber_stack(const void* address) {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= machine.stacks.get() && byte < machine.stacks.get() + kStackBytes * kMaxThreads;
}

void fail(const std::string& message, Site site) {
  machine.error = message + " at " + place(site) + who();
  for (;;) give_way(State::kDone, site);
}

void wait_until(const std::function<bool()>& ready, Site site) {
  current().ready = &ready;
  give_way(State::kWaiting, site);
}

void check_shared(const void* address, std::size_t bytes, std::size_t alignment, Site site) {
  const auto offset = static_cast<const unsigned char*>(address) - shared_memory();
  if (offset < 0 || offset + bytes > machine.shared_bytes) {
    fail("shared memory access out of bounds: byte " + std::to_string(offset) + " of " +
             std::to_string(machine.shared_bytes),
         site);
  }
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) {
    fail("shared memory access not aligned to " + std::to_string(alignment) + " bytes", site);
  }
}

void sync_block(Site site) {
  for (unsigned i = 0; i < machine.block_threads; ++i) {
    const Thread& other = machine.threads[i];
    if (other.state == State::kAtBarrier && other.site.line() != site.line()) {
      fail("divergent barrier: thread " + std::to_string(i) + " waits at " + place(other.site) +
               " and this one",
           site);
    }
    if (other.state == State::kAtBarrier) break;  // those waiting agree with one another
  }
  if (++machine.waiting_at_barrier < machine.block_threads) {
    give_way(State::kAtBarrier, site);
    return;
  }
  machine.waiting_at_barrier = 0;
  ++machine.position.block_interval;
  async_order::join_block();
  for (unsigned i = 0; i < machine.block_threads; ++i) machine.threads[i].state = State::kReady;
}

void sync_warp(unsigned mask, WarpOp op, void* payload, void (*combine)(void* const*), Site site) {
  const unsigned lane = machine.position.thread % kWarp, first = machine.position.warp * kWarp;
  Warp& warp = machine.warps[machine.position.warp];
  if (!(mask >> lane & 1)) fail("a warp operation whose mask leaves out the calling lane", site);
  std::size_t slot = 0;
  while (slot < warp.pending.size() && warp.pending[slot].mask != mask) ++slot;
  if (slot == warp.pending.size()) {
    warp.pending.emplace_back();
    warp.pending[slot].mask = mask;
    warp.pending[slot].op = op;
    warp.pending[slot].site = site;
  }
  PendingWarpOp& pending = warp.pending[slot];
  if (pending.op != op || pending.site.line() != site.line()) {
    fail("divergent warp operation: other lanes wait at " + place(pending.site) + " and this one",
         site);
  }
  pending.payloads[lane] = payload;
  pending.arrived |= 1u << lane;
  if (pending.arrived != mask) {
    give_way(State::kAtWarpOp, site);
    return;
  }
  if (combine) combine(pending.payloads);
  if (op == WarpOp::kSync) {
    machine.position.warp_interval = ++warp.interval;
    async_order::join_warp(machine.position.warp, mask);
  }
  warp.pending.erase(warp.pending.begin() + static_cast<std::ptrdiff_t>(slot));
  for (unsigned i = 0; i < kWarp; ++i) {
    if (mask >> i & 1) machine.threads[first + i].state = State::kReady;
  }
}

std::string run(dim3 grid, dim3 block, std::size_t shared_bytes,
                const std::function<void()>& body) {
  if (std::string limit = check_limits(grid, block, shared_bytes); !limit.empty()) return limit;
  if (machine.threads.empty()) make_fibers();
  machine.shared.reset(
      new (std::align_val_t{kSharedBase}) unsigned char[shared_bytes + 2 * kGuard]);
  machine.shared_bytes = shared_bytes;
  machine.body = &body;
  machine.error.clear();
  machine.builtins.block_size = block;
  machine.builtins.grid_size = grid;
  ++machine.position.launch;
  race_log::begin_launch();
  async_copy::forget_all();
  std::uint64_t number = 0;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        machine.builtins.block_index = {x, y, z};
        machine.position.block = number++;
        ++machine.position.block_interval;
        race_log::begin_block();
        const unsigned threads = block.x * block.y * block.z;
        async_order::begin_block(threads);
        mbarriers::begin_block();
        warp_groups::begin_block(threads);
        run_block(threads);
        if (machine.error.empty()) machine.error = mbarriers::end_block();
        if (machine.error.empty()) machine.error = warp_groups::end_block();
        if (!machine.error.empty()) {
          // Fibers are stuck inside the kernel: the next launch gets new ones.
          machine.threads.clear();
          return machine.error;
        }
      }
    }
  }
  return "";
}

}  // namespace suder::emulator
