// What the emulator's own files share: the threads and blocks that run at the moment.
#pragma once

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "emulator.h"
#include "fiber.h"

namespace suder::emulator {

inline constexpr unsigned kWarp = 32, kMaxThreads = 1024;
// Where a block's dynamic shared memory begins: its alignment, and its first PTX address.
inline constexpr std::size_t kSharedBase = 1024;
// Bytes around shared memory that nobody may touch; AddressSanitizer brings its own.
#ifdef __SANITIZE_ADDRESS__
inline constexpr std::size_t kGuard = 0;
inline constexpr std::size_t kStackBytes = 256 * 1024;
#else
inline constexpr std::size_t kGuard = 4096;
inline constexpr std::size_t kStackBytes = 64 * 1024;
#endif

enum class State { kReady, kAtBarrier, kAtClusterBarrier, kAtWarpOp, kWaiting, kDone };

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

struct FreeAligned {
  void operator()(unsigned char* memory) const {
    ::operator delete[](memory, std::align_val_t{kSharedBase});
  }
};

struct Block {
  std::unique_ptr<unsigned char[], FreeAligned> shared;
  dim3 index;
  std::uint64_t number = 0, interval = 0;
  unsigned at_barrier = 0;  // threads that wait there
  unsigned left = 0;        // threads that have left the kernel
};

// One machine a process: kernels run one launch at a time, and of a launch one cluster. Its blocks'
// threads are numbered through, and so are their warps.
struct Machine {
  std::unique_ptr<unsigned char[]> stacks;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Block> blocks;  // of the cluster
  std::size_t shared_bytes = 0;
  const std::function<void()>* body = nullptr;
  Builtins builtins;
  Position position = {};
  unsigned cluster_threads = 0, at_cluster_barrier = 0;
  std::uint64_t intervals = 0;  // begun so far, between barriers of whatever block
  std::string error;
  bool reverse = false;

  Thread& current() { return threads[position.thread]; }
  Block& block() { return blocks[position.rank]; }
};
extern Machine machine;

std::string place(const Site& site);
void give_way(State state, Site site);
std::string describe_stuck_cluster();  // why no thread can run

}  // namespace suder::emulator
