// mbarrier objects: phases that end when all arrivals and all announced bytes are in. Bytes arrive
// when somebody waits for them, so that a kernel that does not wait reads what was there before.
#pragma once

#include <cstdint>
#include <string>

#include "bulk_copy.h"
#include "emulator.h"

namespace suder::emulator::mbarriers {

void init(const std::uint64_t* barrier, unsigned arrivals, Site site);
void arrive(const std::uint64_t* barrier, Site site);
// At the barrier in the same place of block `rank` of the cluster.
void arrive_at(const std::uint64_t* barrier, unsigned rank, Site site);
void arrive_expect(const std::uint64_t* barrier, unsigned bytes, Site site);
void wait(const std::uint64_t* barrier, unsigned parity, Site site);

// Starts a copy to the same place in the blocks whose bits are set in `ranks`, which counts towards
// the running phase of each one's barrier.
void copy(const std::uint64_t* barrier, unsigned ranks, const TileCopy& tile, Site site);

void begin_cluster();
std::string end_cluster();  // what is still under way, or ""

}  // namespace suder::emulator::mbarriers
