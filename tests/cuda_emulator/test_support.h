// What the emulator's own tests share: counting failures, running a kernel in both thread orders.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

#include "cuda/launch.cuh"
#include "emulator.h"

inline int failures = 0;

inline void expect(bool condition, const char* what) {
  if (!condition) {
    std::printf("FAILED: %s\n", what);
    ++failures;
  }
}

inline void expect_report(const std::string& message, const char* words, const char* what) {
  if (message.find(words) == std::string::npos) {
    std::printf("FAILED: %s: expected '%s', got '%s'\n", what, words, message.c_str());
    ++failures;
  }
}

// Runs a kernel in both thread orders, in clusters of so many blocks; "" or the first report.
template <class Kernel, class... A>
std::string report_clusters(Kernel kernel, unsigned cluster, dim3 grid, dim3 block,
                            std::size_t shared, A... arguments) {
  for (const bool reverse : {false, true}) {
    suder::emulator::set_reverse_order(reverse);
    try {
      suder::cuda::launch_clusters(kernel, cluster, grid, block, shared, 0, arguments...);
    } catch (const std::runtime_error& error) {
      suder::emulator::set_reverse_order(false);
      return error.what();
    }
  }
  suder::emulator::set_reverse_order(false);
  return "";
}

template <class Kernel, class... A>
std::string report(Kernel kernel, dim3 grid, dim3 block, std::size_t shared, A... arguments) {
  return report_clusters(kernel, 1, grid, block, shared, arguments...);
}

// Elements of the matrices whose products are tested: sums of them are exact.
inline float value_a(int i, int k) { return static_cast<float>((i * 7 + k * 3) % 11 - 5); }
inline float value_b(int j, int k) { return static_cast<float>((j * 5 + k) % 7 - 3) / 4; }

void test_hopper();        // hopper_test.cu
void test_clusters();      // cluster_test.cu
void test_shared_loads();  // shared_loads_test.cu
void test_banks();         // bank_test.cu
