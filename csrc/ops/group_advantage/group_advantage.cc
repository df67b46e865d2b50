// Checks and dispatch.
#include "suder/group_advantage.h"

#include <stdexcept>
#include <string>

#include "cpu/isa.h"

namespace suder {

SUDER_DECLARE_ISA(void group_advantage_cpu(const GroupAdvantage& params))

void group_advantage(const GroupAdvantage& params) {
  if (params.group_size < 1) {
    throw std::invalid_argument("group_advantage: group_size is " +
                                std::to_string(params.group_size) + "; it must be at least 1");
  }
  SUDER_CALL_ISA(group_advantage_cpu, params);
}

}  // namespace suder
