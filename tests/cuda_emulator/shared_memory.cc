// The dynamic shared memory of the running block, and that of the others of its cluster.
#include "machine.h"

namespace suder::emulator {
namespace {

const unsigned char* memory(unsigned rank) { return machine.blocks[rank].shared.get() + kGuard; }

}  // namespace

unsigned char* shared_memory() { return machine.block().shared.get() + kGuard; }
SharedRange shared_range() { return {shared_memory(), machine.shared_bytes}; }

std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(pointer) - shared_memory() +
                                    kSharedBase);
}
const unsigned char* shared_pointer(std::uint32_t address) {
  return shared_memory() + address - kSharedBase;
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

unsigned char* shared_in_block(const void* shared, unsigned rank, Site site) {
  if (rank >= machine.blocks.size()) {
    fail("block " + std::to_string(rank) + " named in a cluster of " +
             std::to_string(machine.blocks.size()),
         site);
  }
  if (block_has_left(rank)) {
    fail("block " + std::to_string(rank) +
             " of the cluster has left the kernel: its shared memory"
             " is another's",
         site);
  }
  const auto offset = static_cast<const unsigned char*>(shared) - shared_memory();
  return machine.blocks[rank].shared.get() + kGuard + offset;
}

std::size_t cluster_shared_bytes() {
  const std::size_t pieces = (machine.shared_bytes + kSharedBase - 1) / kSharedBase;
  return pieces * kSharedBase * machine.blocks.size();
}

std::size_t offset_in_cluster(const void* shared) {
  const auto* byte = static_cast<const unsigned char*>(shared);
  unsigned rank = 0;
  while (byte < memory(rank) || byte >= memory(rank) + machine.shared_bytes) ++rank;
  return rank * cluster_shared_bytes() / cluster_blocks() +
         static_cast<std::size_t>(byte - memory(rank));
}

}  // namespace suder::emulator
