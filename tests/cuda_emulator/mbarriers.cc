#include "mbarriers.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "async_order.h"

namespace suder::emulator::mbarriers {
namespace {

struct Copy {
  std::uint32_t phase;
  TileCopy tile;
};

struct Barrier {
  const std::uint64_t* address;
  unsigned arrivals, missing;
  std::int64_t bytes = 0;  // announced and not yet arrived
  std::uint32_t phase = 0;
  async_order::Facts arriving, over;  // what the arrivals of this phase know, and of those before
  std::vector<Copy> copies;
  unsigned maker;
  std::uint64_t made_in;  // interval between block barriers
};

std::vector<Barrier> barriers;  // of the running block

unsigned find(const std::uint64_t* address, Site site) {
  check_shared(address, 8, 8, site);
  for (unsigned i = 0; i < barriers.size(); ++i) {
    const Barrier& barrier = barriers[i];
    if (barrier.address != address) continue;
    if (barrier.maker != position().thread && barrier.made_in == position().block_interval) {
      fail("an mbarrier is used before a block barrier has shown it to this thread", site);
    }
    return i;
  }
  fail("an mbarrier is used that was never initialised", site);
}

void end_phase_if_complete(Barrier& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.missing = barrier.arrivals;
  barrier.over.learn(barrier.arriving);
}

void arrive(Barrier& barrier, Site site) {
  if (barrier.missing == 0) fail("more arrivals than the mbarrier was made for", site);
  barrier.arriving.learn(async_order::known(position().thread));
  --barrier.missing;
  end_phase_if_complete(barrier);
}

void land_copies(Barrier& barrier, Site site) {
  for (const Copy& copy : std::exchange(barrier.copies, {})) {
    if (copy.phase != barrier.phase) {
      fail("a bulk copy ends in another phase than it began in: fewer bytes were announced", site);
    }
    copy.tile.land();
    barrier.bytes -= static_cast<std::int64_t>(copy.tile.bytes());
    end_phase_if_complete(barrier);
  }
}

}  // namespace

void init(const std::uint64_t* address, unsigned arrivals, Site site) {
  check_shared(address, 8, 8, site);
  if (barriers.size() == 32) fail("more mbarriers than the emulator keeps", site);
  barriers.push_back({address,
                      arrivals,
                      arrivals,
                      0,
                      0,
                      {},
                      {},
                      {},
                      position().thread,
                      position().block_interval});
}

void arrive(const std::uint64_t* address, Site site) {
  arrive(barriers[find(address, site)], site);
}

void arrive_expect(const std::uint64_t* address, unsigned bytes, Site site) {
  Barrier& barrier = barriers[find(address, site)];
  barrier.bytes += bytes;
  arrive(barrier, site);
}

void wait(const std::uint64_t* address, unsigned parity, Site site) {
  const unsigned index = find(address, site);
  // Indices, not references: other threads may make barriers meanwhile.
  const auto over = [&] { return barriers[index].phase % 2 != parity; };
  while (!over()) {
    wait_until([&] { return over() || !barriers[index].copies.empty(); }, site);
    if (!over()) land_copies(barriers[index], site);
  }
  async_order::Facts& mine = async_order::known(position().thread);
  mine.learn(barriers[index].over);
  mine.phases[index] = std::max(mine.phases[index], barriers[index].phase);
}

void copy(const std::uint64_t* address, const TileCopy& tile, Site site) {
  const unsigned index = find(address, site);
  check_shared(tile.shared, tile.bytes(), 1024, site);
  async_order::copy(tile.shared, tile.bytes(), index, barriers[index].phase, site);
  std::memset(tile.shared, 0xFF, tile.bytes());  // nobody may count on what was there any more
  barriers[index].copies.push_back({barriers[index].phase, tile});
}

void begin_block() { barriers.clear(); }

std::string end_block() {
  for (const Barrier& barrier : barriers) {
    if (!barrier.copies.empty()) return "the block ended with a bulk copy under way";
  }
  return "";
}

}  // namespace suder::emulator::mbarriers
