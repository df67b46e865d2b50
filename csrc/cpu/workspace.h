// Scratch memory: aligned, uninitialised, freed at the end of the scope.
#pragma once

#include <cstddef>
#include <cstdint>

namespace suder::cpu {

class Workspace {
 public:
  // Throws std::bad_alloc.
  explicit Workspace(std::int64_t floats);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  float* data() const { return data_; }

 private:
  float* data_;
};

}  // namespace suder::cpu
