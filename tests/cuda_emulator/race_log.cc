// Race detection. Kernels are compiled with -fsanitize=thread, which puts a call before every
// memory access; the calls land here and not in ThreadSanitizer's run-time library, because what
// orders two accesses is CUDA's barriers, not mutexes. Shared and global memory are both watched.
//
// Two accesses of one address, one of them a write, by different threads are ordered if a
// __syncthreads lies between them, or, for lanes of one warp, a __syncwarp. Shuffles and votes
// order nothing, as the programming guide says. Blocks of one launch are never ordered: those of a
// cluster could be, but share no more than copies, which async_order.cc watches. Cells are two
// bytes wide: nothing in this project stores single bytes.
#include "race_log.h"

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "bank_log.h"

// The writable data of this library, where `static` (emulated __shared__) arrays live: it lies
// between these two symbols of the linker.
extern "C" {
extern char _GLOBAL_OFFSET_TABLE_[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace suder::emulator::race_log {
namespace {

#ifdef SUDER_EMULATOR_RACES
constexpr bool kEnabled = true;
#else
constexpr bool kEnabled = false;
#endif

struct Access {
  std::uint64_t interval = 0, block = 0;  // interval 0: never
  unsigned thread = 0, warp = 0, warp_interval = 0;
  bool several_lanes = false, several_warps = false;
};

struct Cell {
  Access write, read;
};

std::vector<Cell> shared_cells;  // of the cluster's blocks
std::unordered_map<std::uintptr_t, Cell> other_cells;
constexpr std::size_t kGuard = 4096;

bool in_static_shared(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  return byte >= _GLOBAL_OFFSET_TABLE_ && byte < _end;
}

// Does nothing order `earlier` before an access made now?
bool unordered(const Access& earlier, const Position& now, bool across_blocks) {
  if (earlier.interval == 0) return false;
  if (earlier.block != now.block) return across_blocks;
  if (earlier.interval != now.block_interval) return false;
  if (earlier.several_warps || earlier.warp != now.warp) return true;
  if (earlier.warp_interval != now.warp_interval) return false;
  return earlier.several_lanes || earlier.thread != now.thread;
}

void note_read(Access& read, const Position& now) {
  const bool same_interval = read.interval == now.block_interval && read.block == now.block;
  const bool other_warp = same_interval && (read.several_warps || read.warp != now.warp);
  const bool other_lane = same_interval && read.warp == now.warp &&
                          read.warp_interval == now.warp_interval &&
                          (read.several_lanes || read.thread != now.thread);
  read = {now.block_interval, now.block,  now.thread, now.warp,
          now.warp_interval,  other_lane, other_warp};
}

void visit(Cell& cell, const Position& now, bool write, bool across_blocks) {
  const bool after_write = unordered(cell.write, now, across_blocks);
  const bool after_read = write && unordered(cell.read, now, across_blocks);
  if (after_write || after_read) {
    const Access& other = after_write ? cell.write : cell.read;
    const unsigned thread = other.thread % now.block_threads;
    fail(std::string("race: this ") + (write ? "write" : "read") + " and the " +
         (after_write ? "write" : "read") + " of thread " + std::to_string(thread) + ", block " +
         std::to_string(other.block) + " of the same address are not ordered");
  }
  if (write) {
    cell.write = {now.block_interval, now.block, now.thread, now.warp,
                  now.warp_interval,  false,     false};
  } else {
    note_read(cell.read, now);
  }
}

}  // namespace

bool enabled() { return kEnabled; }

void begin_launch() { other_cells.clear(); }
void begin_cluster() {
  if (kEnabled) shared_cells.assign(cluster_shared_bytes() / 2, Cell{});
}

void access(const void* address, std::size_t bytes, bool write) {
  const Position& now = position();
  if (!kEnabled || !now.active || on_fiber_stack(address)) return;
  const SharedRange shared = shared_range();
  const auto* byte = static_cast<const unsigned char*>(address);
  const auto* own = reinterpret_cast<const unsigned char*>(&builtins());
  if (byte >= own && byte < own + sizeof(Builtins)) return;  // threadIdx and the like
  if (byte + kGuard >= shared.begin && byte < shared.begin + shared.bytes + kGuard) {
    check_shared(address, bytes, 1, Site::current());
    const std::size_t first = offset_in_cluster(address) / 2;
    for (std::size_t i = 0; i < (bytes + 1) / 2; ++i) {
      visit(shared_cells[first + i], now, write, false);
    }
    return;
  }
  // Static arrays exist once: of them the blocks of a cluster would see one another's.
  const bool across_blocks = !in_static_shared(address) || cluster_blocks() > 1;
  const auto first = reinterpret_cast<std::uintptr_t>(address) / 2;
  for (std::size_t i = 0; i < (bytes + 1) / 2; ++i) {
    visit(other_cells[first + i], now, write, across_blocks);
  }
}

}  // namespace suder::emulator::race_log

// The instrumentation's interface (gcc/sanitizer.def). Only what compiled kernels call.
#ifdef SUDER_EMULATOR_RACES
namespace {
// Inlined, or every access would come from here.
[[gnu::always_inline]] inline void access(void* p, std::size_t bytes, bool write) {
  suder::emulator::race_log::access(p, bytes, write);
  suder::emulator::bank_log::access(__builtin_return_address(0), p, bytes);
}
}  // namespace
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
#define SUDER_HOOKS(n)                                            \
  void __tsan_read##n(void* p) { access(p, n, false); }           \
  void __tsan_write##n(void* p) { access(p, n, true); }           \
  void __tsan_unaligned_read##n(void* p) { access(p, n, false); } \
  void __tsan_unaligned_write##n(void* p) { access(p, n, true); } \
  void __tsan_volatile_read##n(void* p) { access(p, n, false); }  \
  void __tsan_volatile_write##n(void* p) { access(p, n, true); }
SUDER_HOOKS(1)
SUDER_HOOKS(2)
SUDER_HOOKS(4)
SUDER_HOOKS(8)
SUDER_HOOKS(16)
#undef SUDER_HOOKS
void __tsan_read_range(void* p, unsigned long n) { access(p, n, false); }
void __tsan_write_range(void* p, unsigned long n) { access(p, n, true); }
}
#endif
