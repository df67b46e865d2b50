// The 16-bit formats: every value survives the way there and back, and rounding is to nearest even.
#include <cmath>
#include <cstdint>

#include "check.h"
#include "common/dtype.h"

using suder::BFloat16;
using suder::Float16;
using suder::from_float;
using suder::to_float;

template <class T>
void check_round_trip(const char* name) {
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const T value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    const T back = from_float<T>(wide);
    const bool same = std::isnan(wide) ? std::isnan(to_float(back)) : back.bits == value.bits;
    CHECK(same, "%s %04x -> %g -> %04x", name, bits, wide, back.bits);
  }
}

// Between two neighbours: below the middle goes down, above goes up, the middle to the even one.
template <class T>
void check_rounding(const char* name, std::uint32_t last) {
  for (std::uint32_t bits = 0; bits < last; ++bits) {
    const T low{static_cast<std::uint16_t>(bits)}, high{static_cast<std::uint16_t>(bits + 1)};
    const float middle = 0.5f * to_float(low) + 0.5f * to_float(high);
    const std::uint16_t even = bits % 2 == 0 ? low.bits : high.bits;
    CHECK(from_float<T>(middle).bits == even, "%s middle after %04x", name, bits);
    CHECK(from_float<T>(std::nextafter(middle, 0.0f)).bits == low.bits, "%s %04x", name, bits);
    CHECK(from_float<T>(std::nextafter(middle, 1e38f)).bits == high.bits, "%s %04x", name, bits);
  }
}

int main() {
  check_round_trip<BFloat16>("bfloat16");
  check_round_trip<Float16>("float16");
  check_rounding<Float16>("float16", 0x7bff);
  check_rounding<BFloat16>("bfloat16", 0x7e7f);
  CHECK(from_float<Float16>(65520.0f).bits == 0x7c00, "float16 overflow");
  CHECK(from_float<Float16>(65519.0f).bits == 0x7bff, "float16 largest");
  CHECK(std::isnan(to_float(from_float<BFloat16>(std::nanf("0x7fffff")))), "bfloat16 NaN");
  return failures();
}
