// Stands in for csrc/cuda/launch.cuh: the same functions, run by the emulator.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <tuple>

namespace suder::cuda {

inline unsigned char* dynamic_shared() { return suder::emulator::shared_memory(); }

// Few, so that a kernel with a block for each makes them work more than once; and odd, so that
// clusters leave one idle.
inline int multiprocessors() { return 5; }

// Of sm_90; a test may ask for a smaller card.
inline std::size_t most_shared_bytes() {
  const char* bytes = std::getenv("SUDER_EMULATED_SHARED");
  return bytes == nullptr ? 232448 : static_cast<std::size_t>(std::atol(bytes));
}

template <typename... P, typename... A>
void launch_clusters(void (*kernel)(P...), unsigned cluster, dim3 grid, dim3 block,
                     std::size_t shared_bytes, std::uintptr_t /*stream*/, A... arguments) {
  const std::tuple<P...> values(arguments...);
  const std::string error =
      suder::emulator::run(grid, block, cluster, shared_bytes, [&] { std::apply(kernel, values); });
  if (!error.empty()) throw std::runtime_error("emulated launch: " + error);
}

template <typename... P, typename... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
            std::uintptr_t stream, A... arguments) {
  launch_clusters(kernel, 1, grid, block, shared_bytes, stream, arguments...);
}

}  // namespace suder::cuda
