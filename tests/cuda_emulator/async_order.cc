#include "async_order.h"

#include <algorithm>
#include <string>
#include <vector>

namespace suder::emulator::async_order {
namespace {

constexpr std::size_t kCell = 128;  // bytes: a row of a swizzled tile
constexpr unsigned kWarp = 32;

struct Cell {
  int barrier = -1;  // of the last copy, and its phase
  std::uint32_t phase = 0;
  std::array<std::uint32_t, 32> products{};  // of each warp, the last that reads
};

std::vector<Facts> facts;
bool used = false;  // has anybody learnt anything? In most kernels nobody does
std::vector<Cell> cells;

template <class Visit>
void visit_cells(const void* shared, std::size_t bytes, Visit visit) {
  if (cells.empty()) cells.resize(cluster_shared_bytes() / kCell);
  const std::size_t first = offset_in_cluster(shared);
  for (std::size_t i = first / kCell; i <= (first + bytes - 1) / kCell; ++i) visit(cells[i]);
}

}  // namespace

void Facts::learn(const Facts& other) {
  for (std::size_t i = 0; i < phases.size(); ++i) phases[i] = std::max(phases[i], other.phases[i]);
  for (std::size_t i = 0; i < products.size(); ++i) {
    products[i] = std::max(products[i], other.products[i]);
  }
}

void begin_cluster(unsigned threads) {
  if (used || facts.size() != threads) facts.assign(threads, Facts{});
  used = false;
  cells.clear();
}

Facts& known(unsigned thread) {
  used = true;
  return facts[thread];
}

void join(unsigned first, unsigned threads) {
  if (!used) return;
  Facts all;
  for (unsigned i = first; i < first + threads; ++i) all.learn(facts[i]);
  for (unsigned i = first; i < first + threads; ++i) facts[i] = all;
}

void join_warp(unsigned warp, unsigned mask) {
  if (!used) return;
  Facts all;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (mask >> lane & 1) all.learn(facts[warp * kWarp + lane]);
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (mask >> lane & 1) facts[warp * kWarp + lane] = all;
  }
}

void copy(const void* shared, std::size_t bytes, unsigned barrier, std::uint32_t phase, Site site) {
  const Facts& mine = facts[position().thread];
  visit_cells(shared, bytes, [&](Cell& cell) {
    if (cell.barrier >= 0 && mine.phases[static_cast<unsigned>(cell.barrier)] <= cell.phase) {
      fail("a bulk copy writes where an earlier one may still be under way", site);
    }
    for (unsigned warp = 0; warp < cell.products.size(); ++warp) {
      if (cell.products[warp] > mine.products[warp]) {
        fail("a bulk copy overwrites an operand that a product of warp " + std::to_string(warp) +
                 " may still read",
             site);
      }
    }
    cell.barrier = static_cast<int>(barrier);
    cell.phase = phase;
  });
}

void product(const void* shared, std::size_t bytes, std::uint32_t number, Site site) {
  const unsigned warp = position().warp;
  visit_cells(shared, bytes, [&](Cell& cell) {
    for (unsigned lane = 0; cell.barrier >= 0 && lane < kWarp; ++lane) {
      const Facts& its = facts[warp * kWarp + lane];
      if (its.phases[static_cast<unsigned>(cell.barrier)] <= cell.phase) {
        fail("a product reads an operand whose copy lane " + std::to_string(lane) +
                 " has not waited for",
             site);
      }
    }
    cell.products[warp] = number;
  });
}

}  // namespace suder::emulator::async_order
