#include "warp_groups.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "async_order.h"

namespace suder::emulator::warp_groups {
namespace {

constexpr int kRows = 16, kMostColumns = 256, kDepth = 16;  // a warp's part of a product
constexpr unsigned kWarp = 32, kWarpsInGroup = 4;

struct Sums {
  float* lanes[kWarp];
  int in_flight = 0;
  std::vector<float> values;
  int columns;
};

struct Warp {
  std::vector<Product> open;
  std::deque<std::vector<Product>> committed;
  std::vector<Sums> sums;  // those whose products are under way
  std::uint32_t started = 0, finished = 0;
  bool fenced = false;
};

std::vector<Warp> warps(32);
int wanted_pending = 0;  // the argument of the wait that a warp is at
Site here;

Warp& own() { return warps[position().warp]; }

// The value of each of the 65536 elements of a format.
template <class Convert>
std::vector<float> values_of(Convert convert) {
  std::vector<float> values(65536);
  for (unsigned bits = 0; bits < values.size(); ++bits) {
    values[bits] = convert(static_cast<std::uint16_t>(bits));
  }
  return values;
}

const float* values_of(const Product& product) {
  static const std::vector<float> tables[] = {
      values_of([](std::uint16_t bits) { return __bfloat162float({bits}); }),
      values_of([](std::uint16_t bits) { return __half2float({bits}); })};
  return tables[product.half].data();
}

// An operand in shared memory, as its descriptor tells (PTX manual, "Matrix descriptor").
class Operand {
 public:
  Operand(std::uint64_t descriptor, int first_row)
      : start_(static_cast<std::uint32_t>(descriptor & 0x3FFF) << 4),
        leading_(static_cast<std::uint32_t>(descriptor >> 16 & 0x3FFF) << 4),
        stride_(static_cast<std::uint32_t>(descriptor >> 32 & 0x3FFF) << 4),
        mode_(static_cast<int>(descriptor >> 62)),
        first_row_(first_row) {
    if (descriptor >> 49 & 7) fail("a matrix descriptor with a base offset: not emulated", here);
  }

  // Rows lie in groups of eight, chunks of 16 bytes apart from one another or side by side in rows
  // of 128, 64 or 32 bytes and exchanged by the bits of the address above the row.
  std::uint32_t address(int row, int k) const {
    row += first_row_;
    const auto group = static_cast<std::uint32_t>(row / 8),
               within = static_cast<std::uint32_t>(row % 8);
    const auto chunk = static_cast<std::uint32_t>(k / 8),
               byte = static_cast<std::uint32_t>(k % 8) * 2;
    if (mode_ == 0) return start_ + group * stride_ + chunk * leading_ + within * 16 + byte;
    const std::uint32_t width = 256u >> mode_;
    const std::uint32_t plain = start_ + group * stride_ + within * width + chunk * 16 + byte;
    return plain ^ ((plain >> 7 & (width / 16 - 1)) << 4);
  }

  void read(int rows, const float* values, float* out) const {
    for (int row = 0; row < rows; ++row) {
      for (int k = 0; k < kDepth; ++k) {
        std::uint16_t bits;
        std::memcpy(&bits, place(row, k), 2);
        out[row * kDepth + k] = values[bits];
      }
    }
  }

  void note_reads(int rows, std::uint32_t number) const {
    for (int row = 0; row < rows; ++row) {
      for (int k = 0; k < kDepth; k += 8) async_order::product(place(row, k), 16, number, here);
    }
  }

 private:
  const unsigned char* place(int row, int k) const {
    const unsigned char* pointer = shared_pointer(address(row, k));
    check_shared(pointer, 2, 2, here);
    return pointer;
  }

  std::uint32_t start_, leading_, stride_;
  int mode_, first_row_;
};

Operand operand_a(const Product& product) {
  return {product.a, static_cast<int>(position().warp % kWarpsInGroup) * kRows};
}

float& lane_sum(const Sums& sums, int row, int column) {
  const int lane = row % 8 * 4 + column % 8 / 2;
  return sums.lanes[lane][column / 8 * 4 + row / 8 * 2 + column % 2];
}

template <class Visit>
void for_each_sum(Sums& sums, Visit visit) {
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < sums.columns; ++column) {
      visit(lane_sum(sums, row, column),
            sums.values[static_cast<std::size_t>(row * sums.columns + column)]);
    }
  }
}

void finish(const Product& product) {
  Warp& warp = own();
  std::size_t slot = 0;
  while (warp.sums[slot].lanes[0] != product.sums) ++slot;
  Sums& sums = warp.sums[slot];
  static float a[kRows * kDepth], b[kMostColumns * kDepth], across[kDepth][kMostColumns];
  const int columns = product.columns;
  operand_a(product).read(kRows, values_of(product), a);
  Operand(product.b, 0).read(columns, values_of(product), b);
  for (int n = 0; n < columns; ++n) {
    for (int k = 0; k < kDepth; ++k) across[k][n] = b[n * kDepth + k];
  }
  for (int m = 0; m < kRows; ++m) {
    float part[kMostColumns] = {};
    for (int k = 0; k < kDepth; ++k) {
      const float value = a[m * kDepth + k];
      for (int n = 0; n < columns; ++n) part[n] += value * across[k][n];
    }
    float* total = &sums.values[static_cast<std::size_t>(m * columns)];
    for (int n = 0; n < columns; ++n) total[n] = product.add ? total[n] + part[n] : part[n];
  }
  ++warp.finished;
  if (--sums.in_flight > 0) return;
  for_each_sum(sums, [](float& lane, float& value) { lane = value; });
  warp.sums.erase(warp.sums.begin() + static_cast<std::ptrdiff_t>(slot));
}

void start(void* const* payloads) {
  Warp& warp = own();
  const Product& product = *static_cast<Product*>(payloads[0]);
  for (unsigned lane = 1; lane < kWarp; ++lane) {
    const Product& other = *static_cast<Product*>(payloads[lane]);
    if (other.a != product.a || other.b != product.b || other.add != product.add) {
      fail("the lanes of a product name different operands", here);
    }
  }
  if (!warp.fenced) fail("wgmma without wgmma.fence since its sums were last used", here);
  std::size_t slot = 0;
  while (slot < warp.sums.size() && warp.sums[slot].lanes[0] != product.sums) ++slot;
  if (slot == warp.sums.size()) {
    Sums& sums = warp.sums.emplace_back();
    sums.columns = product.columns;
    sums.values.resize(static_cast<std::size_t>(kRows * sums.columns));
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      sums.lanes[lane] = static_cast<Product*>(payloads[lane])->sums;
    }
    for_each_sum(sums, [](float& lane, float& value) { value = std::exchange(lane, NAN); });
  }
  ++warp.sums[slot].in_flight;
  warp.open.push_back(product);
  ++warp.started;
  operand_a(product).note_reads(kRows, warp.started);
  Operand(product.b, 0).note_reads(product.columns, warp.started);
}

void finish_all_but_newest(void* const*) {
  Warp& warp = own();
  while (warp.committed.size() > static_cast<std::size_t>(wanted_pending)) {
    for (const Product& product : warp.committed.front()) finish(product);
    warp.committed.pop_front();
  }
  if (warp.sums.empty()) warp.fenced = false;
  const unsigned first = position().warp * kWarp;
  async_order::known(first).products[position().warp] = warp.finished;
  async_order::join_warp(position().warp, 0xFFFFFFFFu);
}

}  // namespace

void multiply(Product product, Site site) {
  here = site;
  sync_warp(0xFFFFFFFFu, WarpOp::kGroupProduct, &product, start, site);
}

void fence() { own().fenced = true; }

void commit() {
  if (position().thread % kWarp != 0) return;  // once a warp
  own().committed.push_back(std::exchange(own().open, {}));
}

void wait(int pending, Site site) {
  here = site;
  wanted_pending = pending;
  sync_warp(0xFFFFFFFFu, WarpOp::kGroupWait, nullptr, finish_all_but_newest, site);
}

void begin_cluster(unsigned threads) { warps.assign((threads + kWarp - 1) / kWarp, Warp{}); }

std::string end_cluster() {
  for (std::size_t i = 0; i < warps.size(); ++i) {
    if (warps[i].started != warps[i].finished) {
      return "warp " + std::to_string(i) + " left the kernel with products under way";
    }
    if (warps[i].started != warps[i - i % kWarpsInGroup].started) {
      return "warp " + std::to_string(i) + " and others of its group started different products";
    }
  }
  return "";
}

}  // namespace suder::emulator::warp_groups
