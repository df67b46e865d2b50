#include "cpu/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace suder::cpu {
namespace {

constexpr int kMaxThreads = 256;

struct Loop {
  TaskFunction function;
  void* context;
  std::int64_t tasks;
  std::atomic<std::int64_t> next{0};

  void work(int thread) {
    for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      function(context, task, thread);
    }
  }
};

class Pool {
 public:
  // False if another loop holds the pool.
  bool run(Loop& loop, int helpers) {
    std::unique_lock busy(busy_, std::try_to_lock);
    if (!busy) return false;
    {
      std::lock_guard lock(mutex_);
      while (workers_ < helpers) {
        ++workers_;
        std::thread(&Pool::worker, this, workers_, round_).detach();
      }
      loop_ = &loop;
      helpers_ = helpers;
      pending_ = helpers;
      ++round_;
    }
    wake_.notify_all();
    loop.work(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return pending_ == 0; });
    return true;
  }

 private:
  void worker(int number, std::uint64_t seen) {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (number > helpers_) continue;
      Loop* loop = loop_;
      lock.unlock();
      loop->work(number);
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Loop* loop_ = nullptr;
  int workers_ = 0, helpers_ = 0, pending_ = 0;
  std::uint64_t round_ = 0;
};

// Never destroyed: the detached workers use it until the process ends.
std::atomic<Pool*> current_pool{nullptr};

// The child of fork() has none of the workers, and the mutexes may be held by threads it lacks.
void forget_pool() { current_pool.store(nullptr); }

Pool& pool() {
  static std::mutex creating;
  static const bool registered [[maybe_unused]] = [] {
    pthread_atfork([] { creating.lock(); }, [] { creating.unlock(); },
                   [] {
                     creating.unlock();
                     forget_pool();
                   });
    return true;
  }();
  if (Pool* existing = current_pool.load()) return *existing;
  std::lock_guard lock(creating);
  if (current_pool.load() == nullptr) current_pool.store(new Pool);
  return *current_pool.load();
}

}  // namespace

void parallel_tasks(int threads, std::int64_t tasks, TaskFunction function, void* context) {
  if (tasks <= 0) return;
  Loop loop{function, context, tasks};
  const int helpers =
      static_cast<int>(std::min<std::int64_t>(std::min(threads, kMaxThreads), tasks)) - 1;
  if (helpers <= 0 || !pool().run(loop, helpers)) loop.work(0);
}

}  // namespace suder::cpu
