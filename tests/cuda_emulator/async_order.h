// What orders asynchronous accesses of shared memory: bulk copies that write it, and the products
// of warp groups that read it. A wait for a barrier tells a thread that copies have landed, a wait
// for products that operands have been read; arrivals and barriers pass on what a thread knows. An
// access that its thread does not know to be safe is reported, whether or not it did harm.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "emulator.h"

namespace suder::emulator::async_order {

inline constexpr std::size_t kBarriers = 64;  // of a cluster, at most

// What a thread knows: how many phases of each barrier of the cluster are over, and how many
// products of each warp.
struct Facts {
  std::array<std::uint32_t, kBarriers> phases{};
  std::array<std::uint32_t, 32> products{};
  void learn(const Facts& other);
};

void begin_cluster(unsigned threads);
Facts& known(unsigned thread);
// These threads have met at a barrier: each knows what all know.
void join(unsigned first, unsigned threads);
void join_warp(unsigned warp, unsigned mask);

// The calling thread starts a copy into these bytes, counted by a phase of a barrier.
void copy(const void* shared, std::size_t bytes, unsigned barrier, std::uint32_t phase, Site site);
// The calling warp's product of this number (from 1) reads these bytes.
void product(const void* shared, std::size_t bytes, std::uint32_t number, Site site);

}  // namespace suder::emulator::async_order
