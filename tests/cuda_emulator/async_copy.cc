#include "async_copy.h"

#include <cstring>
#include <deque>
#include <vector>

#include "emulator.h"
#include "race_log.h"

namespace suder::emulator::async_copy {
namespace {

struct Copy {
  void* shared;
  const void* global;
  bool valid;
};

struct Queue {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> committed;
};

std::vector<Queue> queues(1024);

}  // namespace

void issue(void* shared, const void* global, bool valid) {
  // The copy may land from now on: whoever still reads the buffer must have passed a barrier.
  race_log::access(shared, 16, true);
  if (valid) race_log::access(global, 16, false);
  queues[position().thread].open.push_back({shared, global, valid});
}

void commit() {
  Queue& queue = queues[position().thread];
  queue.committed.push_back(std::move(queue.open));
  queue.open.clear();
}

void wait(int pending) {
  Queue& queue = queues[position().thread];
  while (queue.committed.size() > static_cast<std::size_t>(pending)) {
    for (const Copy& copy : queue.committed.front()) {
      race_log::access(copy.shared, 16, true);
      if (copy.valid) {
        std::memcpy(copy.shared, copy.global, 16);
      } else {
        std::memset(copy.shared, 0, 16);
      }
    }
    queue.committed.pop_front();
  }
}

void forget_all() {
  for (Queue& queue : queues) queue = {};
}

}  // namespace suder::emulator::async_copy
