// A parallel loop over numbered tasks.
//
// The tasks are the caller's and do not depend on the number of threads, so neither do the results
// as long as each task writes its own memory. The workers sleep between loops and are this
// library's own: OpenMP's would fight for cores with torch's. After fork() a child starts afresh.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace suder::cpu {

// One task: its number and that of the thread it runs on, below `threads`.
using TaskFunction = void (*)(void* context, std::int64_t task, int thread);

// Runs tasks 0 .. tasks-1 on at most `threads` threads (the caller is one) and returns when all
// are done. A loop started while another is running (from another thread, or from inside a task)
// runs on its caller alone. Tasks must not throw.
void parallel_tasks(int threads, std::int64_t tasks, TaskFunction function, void* context);

// parallel_for(threads, tasks, [&](std::int64_t task, int thread) { ... });
template <class F>
void parallel_for(int threads, std::int64_t tasks, F&& body) {
  using Body = std::remove_reference_t<F>;
  parallel_tasks(
      threads, tasks,
      [](void* context, std::int64_t task, int thread) {
        (*static_cast<Body*>(context))(task, thread);
      },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace suder::cpu
