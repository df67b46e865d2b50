// Offsets of packed sequences: sequence i is tokens cu_seqlens[i] to cu_seqlens[i + 1].
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace suder {

// Throws std::invalid_argument, naming the first wrong entry.
inline void check_cu_seqlens(const char* op, const std::int64_t* cu_seqlens, std::int64_t sequences,
                             std::int64_t tokens) {
  const auto fail = [&](std::int64_t entry, const std::string& takes) {
    throw std::invalid_argument(std::string(op) + ": cu_seqlens[" + std::to_string(entry) +
                                "] is " + std::to_string(cu_seqlens[entry]) + "; it must be " +
                                takes);
  };
  if (cu_seqlens[0] != 0) fail(0, "0");
  for (std::int64_t i = 0; i < sequences; ++i) {
    if (cu_seqlens[i + 1] < cu_seqlens[i]) {
      fail(i + 1, "at least the entry before it, " + std::to_string(cu_seqlens[i]));
    }
  }
  if (cu_seqlens[sequences] != tokens) {
    fail(sequences, "the number of tokens, " + std::to_string(tokens));
  }
}

}  // namespace suder
