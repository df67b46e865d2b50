#include "cpu/workspace.h"

#include <new>

namespace suder::cpu {

constexpr std::align_val_t kAlignment{64};

Workspace::Workspace(std::int64_t floats)
    : data_(static_cast<float*>(
          ::operator new(static_cast<std::size_t>(floats) * sizeof(float), kAlignment))) {}

Workspace::~Workspace() { ::operator delete(data_, kAlignment); }

}  // namespace suder::cpu
