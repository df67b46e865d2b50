#include "emulator.h"

#include <sanitizer/asan_interface.h>

#include <cstring>

#include "async_copy.h"
#include "async_order.h"
#include "bank_log.h"
#include "machine.h"
#include "mbarriers.h"
#include "race_log.h"
#include "warp_groups.h"

namespace suder::emulator {

Machine machine;

namespace {

constexpr std::size_t kMaxShared = 232448;  // sm_90; launches above it fail on every GPU
constexpr unsigned kMaxCluster = 8;         // larger ones a kernel has to ask for

// A fiber serves launch after launch: making one costs system calls, resuming one does not.
void fiber_main() {
  for (;;) {
    (*machine.body)();
    machine.current().state = State::kDone;
    machine.current().fiber->leave();
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

void make_blocks(unsigned cluster, std::size_t shared_bytes) {
  machine.blocks = std::vector<Block>(cluster);
  machine.shared_bytes = shared_bytes;
  for (Block& block : machine.blocks) {
    block.shared.reset(
        new (std::align_val_t{kSharedBase}) unsigned char[shared_bytes + 2 * kGuard]);
  }
}

void enter(unsigned index) {
  const dim3 size = machine.builtins.block_size;
  Position& position = machine.position;
  const unsigned local = index % position.block_threads;
  position.rank = index / position.block_threads;
  const Block& block = machine.block();
  machine.builtins.thread_index = {local % size.x, local / size.x % size.y,
                                   local / (size.x * size.y)};
  machine.builtins.block_index = block.index;
  position.block = block.number;
  position.block_interval = block.interval;
  position.thread = index;
  position.warp = index / kWarp;
  position.warp_interval = machine.warps[index / kWarp].interval;
  position.active = true;
  machine.threads[index].fiber->enter();
  position.active = false;
}

// Gives every thread that can run its turn; has any?
bool give_turns() {
  bool moved = false;
  for (unsigned turn = 0; turn < machine.cluster_threads; ++turn) {
    const unsigned i = machine.reverse ? machine.cluster_threads - 1 - turn : turn;
    Thread& thread = machine.threads[i];
    if (thread.state == State::kWaiting && (*thread.ready)()) thread.state = State::kReady;
    if (thread.state != State::kReady) continue;
    moved = true;
    enter(i);
    if (!machine.error.empty()) break;
    machine.block().left += thread.state == State::kDone;
  }
  return moved;
}

bool all_left() {
  for (const Block& block : machine.blocks) {
    if (block.left < machine.position.block_threads) return false;
  }
  return true;
}

void begin_cluster() {
  const unsigned threads = machine.cluster_threads;
  machine.position.cluster_interval = ++machine.intervals;
  machine.at_cluster_barrier = 0;
  for (Block& block : machine.blocks) {
    block.interval = machine.intervals;
    block.at_barrier = block.left = 0;
    // Quiet NaNs in every format: a value that was never written must not look like a result.
    std::memset(block.shared.get(), 0xFF, machine.shared_bytes + 2 * kGuard);
  }
  machine.warps.assign((threads + kWarp - 1) / kWarp, Warp{});
  for (unsigned i = 0; i < threads; ++i) machine.threads[i].state = State::kReady;
  race_log::begin_cluster();
  async_order::begin_cluster(threads);
  mbarriers::begin_cluster();
  warp_groups::begin_cluster(threads);
}

void run_cluster() {
  begin_cluster();
  while (!all_left()) {
    if (!give_turns()) machine.error = describe_stuck_cluster();
    if (!machine.error.empty()) return;
  }
  for (unsigned i = 0; i < machine.warps.size(); ++i) bank_log::end_interval(i);
  machine.error = mbarriers::end_cluster();
  if (machine.error.empty()) machine.error = warp_groups::end_cluster();
}

std::string check_limits(dim3 grid, dim3 block, unsigned cluster, std::size_t shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads) return "a block has 1 to 1024 threads";
  if (grid.x == 0 || grid.x > 0x7FFFFFFFu || grid.y == 0 || grid.y > 65535 || grid.z == 0 ||
      grid.z > 65535) {
    return "grid outside [1, 2^31) x [1, 65535] x [1, 65535]";
  }
  if (shared_bytes > kMaxShared) return "a block has at most 232448 bytes of shared memory";
  if (cluster == 0 || cluster > kMaxCluster) return "a cluster has 1 to 8 blocks";
  if (grid.x % cluster != 0) return "a grid that is not a multiple of its clusters";
  // The emulator's own limits.
  if (cluster > 1 && (threads % 128 != 0 || threads * cluster > kMaxThreads)) {
    return "not emulated: clusters of more than 1024 threads, or of broken warp groups";
  }
  return "";
}

}  // namespace

const Builtins& builtins() { return machine.builtins; }
const Position& position() { return machine.position; }
bool block_has_left(unsigned rank) {
  return machine.blocks[rank].left == machine.position.block_threads;
}
unsigned cluster_blocks() { return static_cast<unsigned>(machine.blocks.size()); }
void set_reverse_order(bool reverse) { machine.reverse = reverse; }

bool on_fiber_stack(const void* address) {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= machine.stacks.get() && byte < machine.stacks.get() + kStackBytes * kMaxThreads;
}

std::string run(dim3 grid, dim3 block, unsigned cluster, std::size_t shared_bytes,
                const std::function<void()>& body) {
  std::string limit = check_limits(grid, block, cluster, shared_bytes);
  if (!limit.empty()) return limit;
  if (machine.threads.empty()) make_fibers();
  make_blocks(cluster, shared_bytes);
  machine.body = &body;
  machine.error.clear();
  machine.builtins.block_size = block;
  machine.builtins.grid_size = grid;
  machine.position.block_threads = block.x * block.y * block.z;
  machine.cluster_threads = machine.position.block_threads * cluster;
  ++machine.position.launch;
  race_log::begin_launch();
  async_copy::forget_all();
  std::uint64_t number = 0;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; x += cluster) {
        for (unsigned rank = 0; rank < cluster; ++rank) {
          machine.blocks[rank].index = {x + rank, y, z};
          machine.blocks[rank].number = number++;
        }
        run_cluster();
        if (machine.error.empty()) continue;
        // Fibers are stuck inside the kernel: the next launch gets new ones.
        machine.threads.clear();
        return machine.error;
      }
    }
  }
  return "";
}

}  // namespace suder::emulator
