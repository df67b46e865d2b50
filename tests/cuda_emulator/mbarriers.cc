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
  Position maker;
  // The last arrival from another block: in which phase, and interval between cluster barriers.
  std::uint32_t remote_phase = 0;
  std::uint64_t remote_interval = 0;
};

std::vector<Barrier> barriers;  // of the running cluster

// The barrier at this place of block `rank`.
unsigned find(const std::uint64_t* address, unsigned rank, Site site) {
  check_shared(address, 8, 8, site);
  const Position& now = position();
  const bool remote = rank != now.rank;
  const void* place = shared_in_block(address, rank, site);
  for (unsigned i = 0; i < barriers.size(); ++i) {
    const Barrier& barrier = barriers[i];
    if (barrier.address != place) continue;
    if (remote && barrier.maker.cluster_interval == now.cluster_interval) {
      fail("an mbarrier is used before a cluster barrier has shown it to this block", site);
    }
    if (barrier.maker.thread != now.thread && barrier.maker.block_interval == now.block_interval) {
      fail("an mbarrier is used before a block barrier has shown it to this thread", site);
    }
    return i;
  }
  fail("an mbarrier is used that was never initialised", site);
}

unsigned find(const std::uint64_t* address, Site site) {
  return find(address, position().rank, site);
}

void end_phase_if_complete(Barrier& barrier) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.missing = barrier.arrivals;
  barrier.over.learn(barrier.arriving);
}

void arrive(Barrier& barrier, Site site) {
  if (barrier.missing == 0) fail("more arrivals than the mbarrier was made for", site);
  if (barrier.maker.rank != position().rank) {
    barrier.remote_phase = barrier.phase;
    barrier.remote_interval = position().cluster_interval;
  }
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
  if (barriers.size() == async_order::kBarriers)
    fail("more mbarriers than the emulator keeps", site);
  barriers.push_back({address, arrivals, arrivals, 0, 0, {}, {}, {}, position()});
}

void arrive(const std::uint64_t* address, Site site) {
  arrive(barriers[find(address, site)], site);
}

void arrive_at(const std::uint64_t* address, unsigned rank, Site site) {
  arrive(barriers[find(address, rank, site)], site);
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

void copy(const std::uint64_t* address, unsigned ranks, const TileCopy& tile, Site site) {
  check_shared(tile.shared, tile.bytes(), 1024, site);
  for (unsigned rank = 0; ranks >> rank != 0; ++rank) {
    if (!(ranks >> rank & 1)) continue;
    const unsigned index = find(address, rank, site);
    TileCopy there = tile;
    there.shared = shared_in_block(tile.shared, rank, site);
    async_order::copy(there.shared, tile.bytes(), index, barriers[index].phase, site);
    std::memset(there.shared, 0xFF, tile.bytes());  // nobody may count on what was there any more
    barriers[index].copies.push_back({barriers[index].phase, there});
  }
}

void begin_cluster() { barriers.clear(); }

std::string end_cluster() {
  const Position& now = position();
  for (unsigned i = 0; i < barriers.size(); ++i) {
    const Barrier& barrier = barriers[i];
    if (!barrier.copies.empty()) return "the block ended with a bulk copy under way";
    if (barrier.remote_interval != now.cluster_interval) continue;
    // Has the barrier's block waited for that arrival? Otherwise it was only luck that its shared
    // memory was still there.
    std::uint32_t over = 0;
    const unsigned first = barrier.maker.rank * now.block_threads;
    for (unsigned thread = first; thread < first + now.block_threads; ++thread) {
      over = std::max(over, async_order::known(thread).phases[i]);
    }
    if (over <= barrier.remote_phase) {
      return "block " + std::to_string(barrier.maker.block) +
             " left the kernel without a cluster barrier after another block's arrival";
    }
  }
  return "";
}

}  // namespace suder::emulator::mbarriers
