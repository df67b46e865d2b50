// Runs CUDA kernels compiled by a C++ compiler: one block at a time, or the blocks of one cluster
// together, each thread of them a fiber.
//
// A fiber runs until it needs the others (a barrier, a shuffle, a matrix product) and then gives
// way; nothing runs in parallel, so a launch is deterministic. What a GPU would leave undefined is
// reported instead: a barrier that not every thread reaches, lanes that disagree about a warp
// operation, accesses of shared memory outside the block's allocation, and, in code compiled with
// -fsanitize=thread (see race_log.cc), two accesses of one address that no barrier orders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace suder::emulator {

using Site = std::source_location;

// What the built-in variables show to the running thread.
struct Builtins {
  dim3 thread_index, block_index, block_size, grid_size;
};
const Builtins& builtins();

// Runs `body` once for every thread of the grid, whose blocks form clusters of so many neighbours
// (1: none). Returns what went wrong, or "".
std::string run(dim3 grid, dim3 block, unsigned cluster, std::size_t shared_bytes,
                const std::function<void()>& body);

// Reverses the order in which a cluster's threads get their turn: a kernel whose result depends on
// it has a race.
void set_reverse_order(bool reverse);

// The dynamic shared memory of the running block, and the 32-bit addresses of PTX for it.
unsigned char* shared_memory();
std::uint32_t shared_address(const void* pointer);
const unsigned char* shared_pointer(std::uint32_t address);

// The same place in the shared memory of another block of the cluster.
unsigned char* shared_in_block(const void* shared, unsigned rank, Site site);
// Where a place lies in the shared memories of the cluster's blocks, put side by side with their
// alignment kept; and how many bytes they are.
std::size_t offset_in_cluster(const void* shared);
std::size_t cluster_shared_bytes();
unsigned cluster_blocks();
bool block_has_left(unsigned rank);

void sync_block(Site site);
void sync_cluster(Site site);

// Waits until every lane of `mask` has come to the same operation; the last one runs `combine` on
// all lanes' payloads (null for lanes outside the mask). Payloads live on the lanes' stacks.
enum class WarpOp {
  kSync,
  kShuffle,
  kVote,
  kLoadMatrix,
  kMatrixProduct,
  kGroupProduct,
  kGroupWait
};
void sync_warp(unsigned mask, WarpOp op, void* payload, void (*combine)(void* const* payloads),
               Site site);

// Gives way to the other threads until `ready()` holds.
void wait_until(const std::function<bool()>& ready, Site site);

// Stops the launch and makes run() return the message, with the thread and the place added.
[[noreturn]] void fail(const std::string& message, Site site = Site::current());

// Fails unless [address, address + bytes) lies in the block's dynamic shared memory, aligned.
void check_shared(const void* address, std::size_t bytes, std::size_t alignment, Site site);

// The running thread: `active` is false outside kernels; threads and warps are numbered through the
// cluster, of whose blocks this is number `rank`; intervals lie between barriers.
struct Position {
  bool active;
  unsigned thread, warp, warp_interval, rank, block_threads;
  std::uint64_t block_interval, cluster_interval, block, launch;
};
const Position& position();
bool on_fiber_stack(const void* address);
struct SharedRange {
  const unsigned char* begin;
  std::size_t bytes;
};
SharedRange shared_range();

}  // namespace suder::emulator
