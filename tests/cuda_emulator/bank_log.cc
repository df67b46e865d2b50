#include "bank_log.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "machine.h"
#include "race_log.h"

namespace suder::emulator::bank_log {
namespace {

constexpr unsigned kLanes = 32, kBanks = 32;

struct Access {
  const void* code;
  std::uint32_t offset;
  unsigned bytes;
};
std::vector<std::vector<Access>> threads(1024);

std::map<const void*, Count> counts;
std::map<const void*, std::string> sites;  // of instructions that the shim stands for

// One access of the warp: what its lanes want, in the order of lanes.
struct WarpAccess {
  unsigned bytes = 0;
  std::array<std::int64_t, kLanes> offsets;  // -1: not this lane
  WarpAccess() { offsets.fill(-1); }

  std::uint64_t conflicts() const {
    const unsigned lanes = bytes <= 4 ? kLanes : kLanes * 4 / bytes;
    std::uint64_t sum = 0;
    for (unsigned first = 0; first < kLanes; first += lanes) {
      std::vector<std::int64_t> words;
      for (unsigned lane = first; lane < first + lanes; ++lane) {
        if (offsets[lane] < 0) continue;
        for (unsigned byte = 0; byte < bytes; byte += 4) {
          words.push_back((offsets[lane] + byte) / 4);
        }
      }
      std::sort(words.begin(), words.end());
      words.erase(std::unique(words.begin(), words.end()), words.end());
      std::array<std::uint64_t, kBanks> wanted{};
      for (const std::int64_t word : words) ++wanted[static_cast<std::size_t>(word) % kBanks];
      const std::uint64_t waves = *std::max_element(wanted.begin(), wanted.end());
      sum += waves > 1 ? waves - 1 : 0;
    }
    return sum;
  }
};

}  // namespace

void access(const void* code, const void* address, std::size_t bytes) {
  if (!race_log::enabled() || !position().active) return;
  const auto* byte = static_cast<const unsigned char*>(address);
  const SharedRange shared = shared_range();
  if (byte < shared.begin || byte >= shared.begin + shared.bytes) return;
  threads[position().thread].push_back(
      {code, static_cast<std::uint32_t>(byte - shared.begin), static_cast<unsigned>(bytes)});
}

void access(Site site, const void* address, std::size_t bytes) {
  if (!race_log::enabled()) return;
  const char* code = site.file_name() + site.line();  // not an address of code, and its own
  sites.try_emplace(code, place(site));
  access(code, address, bytes);
}

void end_interval(unsigned warp) {
  if (!race_log::enabled()) return;
  std::map<std::pair<const void*, unsigned>, WarpAccess> accesses;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    auto& own = threads[warp * kLanes + lane];
    std::map<const void*, unsigned> times;
    for (const Access& access : own) {
      WarpAccess& all = accesses[{access.code, times[access.code]++}];
      all.bytes = access.bytes;
      all.offsets[lane] = access.offset;
    }
    own.clear();
  }
  for (const auto& [key, all] : accesses) {
    Count& count = counts[key.first];
    ++count.accesses;
    count.conflicts += all.conflicts();
  }
}

Count take() {
  Count sum;
  for (const auto& [code, count] : std::exchange(counts, {})) {
    sum.accesses += count.accesses;
    sum.conflicts += count.conflicts;
  }
  return sum;
}

}  // namespace suder::emulator::bank_log

// For tests, by ctypes: all since the last call, one line an instruction: where, accesses of warps,
// conflicts. Places in machine code are told as offsets in this library (addr2line -e).
extern "C" __attribute__((visibility("default"))) const char* suder_bank_report() {
  using namespace suder::emulator::bank_log;
  static std::string text;
  std::ostringstream lines;
  for (const auto& [code, count] : std::exchange(counts, {})) {
    Dl_info library;
    if (const auto site = sites.find(code); site != sites.end()) {
      lines << site->second;
    } else if (dladdr(code, &library) != 0) {
      lines << static_cast<const char*>(code) - static_cast<const char*>(library.dli_fbase);
    }
    lines << ' ' << count.accesses << ' ' << count.conflicts << '\n';
  }
  text = lines.str();
  return text.c_str();
}
