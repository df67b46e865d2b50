// wgmma: products that a warp group starts and that are done when it waits for them. Operands are
// read through their descriptors, then, not before; sums hold NaN while their products run.
#pragma once

#include <cstdint>
#include <string>

#include "emulator.h"

namespace suder::emulator::warp_groups {

// What each lane of a warp brings to a product 64 x columns x 16: both operands with their depth
// contiguous, sums as documented for wgmma (element 4 n + i).
struct Product {
  std::uint64_t a, b;
  bool add;
  float* sums;
  bool half;  // elements are half, not bfloat16
  int columns;
};

void multiply(Product product, Site site);
void fence();
void commit();
void wait(int pending, Site site);

void begin_cluster(unsigned threads);
std::string end_cluster();  // what is still under way, or ""

}  // namespace suder::emulator::warp_groups
