#include "bulk_copy.h"

#include <cstring>

#include "emulator.h"

namespace suder::emulator {

// Chunks of 16 bytes go to the address whose bits 4 to 6 are exchanged by bits 7 to 9.
void TileCopy::land() const {
  const std::uint32_t start = shared_address(shared);
  for (int r = 0; r < box_rows; ++r) {
    for (int c = 0; c < 64; ++c) {
      const std::uint32_t plain = start + static_cast<std::uint32_t>(r * 128 + c * 2);
      unsigned char* place = shared + ((plain ^ (plain >> 7 & 7) << 4) - start);
      if (row + r < rows && column + c < cols) {
        std::memcpy(place, data + 2 * ((row + r) * stride + column + c), 2);
      } else {
        std::memset(place, 0, 2);
      }
    }
  }
}

}  // namespace suder::emulator
