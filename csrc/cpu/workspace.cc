#include "cpu/workspace.h"

#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace suder::cpu {
namespace {

constexpr std::align_val_t kAlignment{64};
[[maybe_unused]] constexpr std::uintptr_t kHugePage = 2 << 20;
// Measured: below, huge pages save a fifth to two thirds of the time of a call that writes fresh
// memory; above, on a virtual machine, they cost up to a seventh (benchmarks/README.md).
[[maybe_unused]] constexpr std::int64_t kMostBytes = 64 << 20;

}  // namespace

void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::int64_t bytes) {
#if defined(__linux__)
  if (bytes > kMostBytes) return;
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t end = (address + static_cast<std::uintptr_t>(bytes)) / kHugePage * kHugePage;
  // A system that has none says so in errno, and nothing is lost.
  if (data != nullptr && begin < end)
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void populate([[maybe_unused]] void* data, [[maybe_unused]] std::int64_t bytes,
              [[maybe_unused]] std::int64_t total) {
#if defined(MADV_POPULATE_WRITE)
  if (total <= kMostBytes) return;
  constexpr std::uintptr_t page = 4096;  // where pages are larger, it says so in errno
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = address / page * page;
  madvise(reinterpret_cast<void*>(begin), address + static_cast<std::uintptr_t>(bytes) - begin,
          MADV_POPULATE_WRITE);
#endif
}

Workspace::Workspace(std::int64_t floats)
    : data_(static_cast<float*>(
          ::operator new(static_cast<std::size_t>(floats) * sizeof(float), kAlignment))) {
  use_huge_pages(data_, floats * static_cast<std::int64_t>(sizeof(float)));
}

Workspace::~Workspace() { ::operator delete(data_, kAlignment); }

}  // namespace suder::cpu
