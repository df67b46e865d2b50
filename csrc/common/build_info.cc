#include "common/build_info.h"

namespace suder {

BuildInfo build_info() {
#if defined(SUDER_SANITIZE)
  const bool sanitized = true;
#else
  const bool sanitized = false;
#endif
#if defined(__clang__)
  const char* compiler = "clang " __clang_version__;
#else
  const char* compiler = "gcc " __VERSION__;
#endif
  return {SUDER_VERSION, compiler, sanitized, SUDER_CUDA_MISSING};
}

}  // namespace suder
