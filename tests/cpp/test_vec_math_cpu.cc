// The error bounds that cpu/vec_math.h states, and the elementary operations of cpu/vec.h.
#include <cmath>

#include "check.h"
#include "cpu/vec_math.h"
#include "isa_check.h"

using suder::broadcast;
using suder::kWidth;
using suder::Vec;

double ulps(float got, double expected) {
  const float nearest = static_cast<float>(expected);
  const float next = std::nextafter(std::fabs(nearest), INFINITY);
  return std::fabs(got - expected) / (static_cast<double>(next) - std::fabs(nearest));
}

void check_exp() {
  double worst = 0.0;
  for (float x = -86.5f; x <= 88.0f; x += 0.00037f) {
    worst = std::fmax(worst, ulps(suder::exp(broadcast(x))[0], std::exp(static_cast<double>(x))));
  }
  std::printf("exp: at most %.2f ulp\n", worst);
  // Without fused multiply-adds every step of the polynomial is rounded once more.
  CHECK(worst <= (kWidth > 4 ? 2.0 : 2.5), "exp: %.3f ulp", worst);
  CHECK(suder::exp(Vec{})[0] == 1.0f, "exp(0)");
  CHECK(suder::exp(broadcast(-104.1f))[0] == 0.0f, "exp of very negative");
  CHECK(suder::exp(broadcast(-INFINITY))[0] == 0.0f, "exp(-inf)");
  CHECK(std::isnan(suder::exp(broadcast(NAN))[kWidth - 1]), "exp(NaN)");
  CHECK(std::isnan(suder::exp(broadcast(std::nanf("0x12345")))[0]), "exp(NaN with a payload)");
}

void check_tanh() {
  double worst = 0.0;
  for (float x = -12.0f; x <= 12.0f; x += 0.00013f) {
    worst = std::fmax(worst, ulps(suder::tanh(broadcast(x))[0], std::tanh(static_cast<double>(x))));
  }
  std::printf("tanh: at most %.2f ulp\n", worst);
  CHECK(worst <= 4.0, "tanh: %.3f ulp", worst);
  CHECK(suder::tanh(broadcast(INFINITY))[0] == 1.0f, "tanh(inf)");
  CHECK(suder::tanh(broadcast(-INFINITY))[0] == -1.0f, "tanh(-inf)");
  CHECK(std::isnan(suder::tanh(broadcast(NAN))[0]), "tanh(NaN)");
}

// Vector conversions agree with the scalar ones of common/dtype.h.
template <class T>
void check_conversion(const char* name) {
  for (std::uint32_t bits = 0; bits < 0x10000u; bits += kWidth) {
    T source[kWidth], back[kWidth];
    for (int i = 0; i < kWidth; ++i) source[i].bits = static_cast<std::uint16_t>(bits + i);
    const Vec wide = suder::load_floats(source);
    suder::store_floats(back, wide * 1.001f);
    for (int i = 0; i < kWidth; ++i) {
      const float scalar = suder::to_float(source[i]);
      if (std::isnan(scalar)) {
        CHECK(std::isnan(wide[i]) && std::isnan(suder::to_float(back[i])), "%s NaN", name);
        continue;
      }
      CHECK(wide[i] == scalar, "%s load %04x", name, source[i].bits);
      CHECK(back[i].bits == suder::from_float<T>(scalar * 1.001f).bits, "%s store %04x", name,
            source[i].bits);
    }
  }
}

void check_transpose() {
  Vec rows[kWidth];
  for (int i = 0; i < kWidth; ++i) {
    for (int j = 0; j < kWidth; ++j) rows[i][j] = static_cast<float>(i * kWidth + j);
  }
  suder::transpose(rows);
  for (int i = 0; i < kWidth; ++i) {
    for (int j = 0; j < kWidth; ++j) CHECK(rows[i][j] == j * kWidth + i, "transpose %d %d", i, j);
  }
}

void check_isa() {
  check_exp();
  check_tanh();
  check_conversion<suder::BFloat16>("bfloat16");
  check_conversion<suder::Float16>("float16");
  check_transpose();
}
