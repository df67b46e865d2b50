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
void arrive_expect(const std::uint64_t* barrier, unsigned bytes, Site site);
void wait(const std::uint64_t* barrier, unsigned parity, Site site);

// Starts a copy that counts towards the barrier's running phase.
void copy(const std::uint64_t* barrier, const TileCopy& tile, Site site);

void begin_block();
std::string end_block();  // what is still under way, or ""

}  // namespace suder::emulator::mbarriers
