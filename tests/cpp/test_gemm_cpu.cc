// Packing and the micro-kernel, for every tail of rows, columns and k, against sums in double.
// The operands lie in memory of exactly their size, so that a sanitizer sees a read past the end.
#include <cmath>
#include <memory>
#include <vector>

#include "check.h"
#include "cpu/gemm.h"
#include "cpu/pack.h"
#include "isa_check.h"

using namespace suder;

template <class T>
std::vector<T> values(std::int64_t count, int seed) {
  std::vector<T> result(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = from_float<T>(std::sin(static_cast<float>(i * 7 + static_cast<std::size_t>(seed))));
  }
  return result;
}

struct Memory {
  explicit Memory(std::int64_t floats) : owner(new float[static_cast<std::size_t>(floats)]) {}
  float* get() const { return owner.get(); }
  std::unique_ptr<float[]> owner;
};

// a[rows, k] times b, which is [columns, k] if `transposed`, else [k, columns].
template <class T>
void check_product(int rows, int columns, int k, bool transposed) {
  using Units = UnitsOf<T>;
  const std::vector<T> a = values<T>(rows * k, 1), b = values<T>(columns * k, 2);
  const std::int64_t depth = units<Units>(k);
  const Memory a_panel(a_panel_size(depth)), b_panel(b_panel_size(depth));
  pack_a(a.data(), k, rows, k, a_panel.get());
  if (transposed) {
    pack_b_transposed(b.data(), k, columns, k, b_panel.get());
  } else {
    pack_b(b.data(), columns, columns, k, nullptr, b_panel.get());
  }
  const int stride = columns + 3;
  std::vector<float> c(static_cast<std::size_t>(rows * stride), 100.0f);
  for (int round = 0; round < 2; ++round) {
    multiply_panels<Units>(a_panel.get(), b_panel.get(), depth, rows, columns, c.data(), stride,
                           round == 1);
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < stride; ++j) {
      double sum = j < columns ? 0.0 : 50.0;
      for (int n = 0; j < columns && n < k; ++n) {
        const T other = transposed ? b[static_cast<std::size_t>(j * k + n)]
                                   : b[static_cast<std::size_t>(n * columns + j)];
        sum +=
            static_cast<double>(to_float(a[static_cast<std::size_t>(i * k + n)])) * to_float(other);
      }
      const float got = c[static_cast<std::size_t>(i * stride + j)];
      CHECK(std::fabs(got - 2.0 * sum) <= 1e-4, "%dx%dx%d at %d,%d: %g %g", rows, columns, k, i, j,
            got, 2.0 * sum);
    }
  }
}

// pack_a_transposed gives the panel that pack_a gives of the transposed matrix.
template <class T>
void check_pack_a_transposed(int k) {
  const int width = static_cast<int>(round_up(kRows, kWidth));
  const std::vector<T> source = values<T>(width * k, 3);
  std::vector<T> turned(static_cast<std::size_t>(kRows * k));
  for (int i = 0; i < kRows; ++i) {
    for (int n = 0; n < k; ++n) {
      turned[static_cast<std::size_t>(i * k + n)] = source[static_cast<std::size_t>(n * width + i)];
    }
  }
  const std::int64_t size = a_panel_size(units<UnitsOf<T>>(k));
  const Memory got(size), expected(size);
  pack_a_transposed(source.data(), width, k, got.get());
  pack_a(turned.data(), k, kRows, k, expected.get());
  CHECK(std::memcmp(got.get(), expected.get(), static_cast<std::size_t>(size) * 4) == 0,
        "pack_a_transposed, k = %d", k);
}

void check_skipped_rows() {
  std::vector<float> b(static_cast<std::size_t>(2 * kColumns), INFINITY);
  for (int j = 0; j < kColumns; ++j) b[static_cast<std::size_t>(kColumns + j)] = 1.0f;
  const std::uint8_t skip[] = {1, 0};
  const Memory panel(b_panel_size(2));
  pack_b(b.data(), kColumns, kColumns, 2, skip, panel.get());
  for (int j = 0; j < kColumns; ++j) {
    CHECK(panel.get()[j] == 0.0f && panel.get()[kColumns + j] == 1.0f, "skipped row, column %d", j);
  }
}

template <class T>
void check_type() {
  for (int k : {1, 2, 3, kWidth - 1, kWidth, kWidth + 1, 2 * kWidth + 1, 77}) {
    for (int rows = 1; rows <= kRows; ++rows) check_product<T>(rows, kColumns, k, true);
    for (int columns = 1; columns <= kColumns; ++columns) {
      check_product<T>(kRows, columns, k, true);
      check_product<T>(3, columns, k, false);
    }
    check_pack_a_transposed<T>(k);
  }
}

void check_isa() {
  check_type<float>();
  check_type<BFloat16>();
  check_type<Float16>();
  check_skipped_rows();
}
