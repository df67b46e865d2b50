// Scratch memory: aligned, uninitialised, freed at the end of the scope; and how to make large
// memory cheap to touch for the first time.
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

// Asks the system to back this memory by huge pages where it is not yet backed: the first write to
// each of 512 small pages costs as much as computing what is written. Does nothing for what is too
// large to gain.
void use_huge_pages(void* data, std::int64_t bytes);

// For a part, soon to be written, of memory of `total` bytes that is too large for that: backs it
// by small pages all at once, a third cheaper than at the first write to each. Else does nothing.
void populate(void* data, std::int64_t bytes, std::int64_t total);

}  // namespace suder::cpu
