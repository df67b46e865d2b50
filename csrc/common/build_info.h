// What this build was made from.
#pragma once

namespace suder {

struct BuildInfo {
  const char* version;
  const char* compiler;
  bool sanitized;
  const char* cuda_missing;  // why there are no CUDA kernels, or ""
};

BuildInfo build_info();

}  // namespace suder
