// Every task runs once, whatever the number of threads; loops inside loops, from several threads
// and in a forked child come to their end.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/parallel.h"

using suder::cpu::parallel_for;

bool each_once(int threads, std::int64_t tasks) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
  std::atomic<bool> in_range{true};
  parallel_for(threads, tasks, [&](std::int64_t task, int thread) {
    if (thread < 0 || thread >= (threads < 1 ? 1 : threads)) in_range = false;
    runs[static_cast<std::size_t>(task)].fetch_add(1);
  });
  for (const std::atomic<int>& count : runs) {
    if (count != 1) return false;
  }
  return in_range;
}

int main() {
  for (int threads : {-1, 0, 1, 2, 3, 7}) {
    for (std::int64_t tasks : {0, 1, 2, 5, 1000}) {
      CHECK(each_once(threads, tasks), "%d threads, %d tasks", threads, static_cast<int>(tasks));
    }
  }
  for (int i = 0; i < 2000; ++i) CHECK(each_once(3, 4), "repetition %d", i);

  std::atomic<int> inner{0};
  parallel_for(3, 8, [&](std::int64_t, int) {
    parallel_for(3, 8, [&](std::int64_t, int) { inner.fetch_add(1); });
  });
  CHECK(inner == 64, "nested: %d", inner.load());

  std::vector<std::thread> callers;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 100; ++j) good.fetch_add(each_once(2, 50));
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 400, "concurrent callers: %d", good.load());

  const pid_t child = fork();
  if (child == 0) _exit(each_once(3, 100) ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in a forked child");
  CHECK(each_once(3, 100), "in the parent after fork");
  return failures();
}
