// What this build was made from.
#pragma once

namespace suder {

struct BuildInfo {
  const char* version;
  const char* compiler;
  bool sanitized;
};

BuildInfo build_info();

}  // namespace suder
