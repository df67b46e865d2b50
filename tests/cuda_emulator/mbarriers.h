// mbarrier objects: phases that end when all arrivals and all announced bytes are in. Bytes arrive
// when somebody waits for them, so that a kernel that does not wait reads what was there before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "emulator.h"

namespace suder::emulator::mbarriers {

void init(const std::uint64_t* barrier, unsigned arrivals, Site site);
void arrive(const std::uint64_t* barrier, Site site);
void arrive_expect(const std::uint64_t* barrier, unsigned bytes, Site site);
void wait(const std::uint64_t* barrier, unsigned parity, Site site);

// A copy of so many bytes to `shared` that ends by calling `land`.
void copy(const std::uint64_t* barrier, void* shared, std::size_t bytes,
          std::function<void()> land, Site site);

void begin_block();
std::string end_block();  // what is still under way, or ""

}  // namespace suder::emulator::mbarriers
