#include "prepared/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace voxpress {
namespace {

using Body = void (*)(void*, int32_t, int32_t);

constexpr std::chrono::microseconds kSpin{200};  // about the time of a layer
constexpr int kPollsPerLook = 64;                // at the clock

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// True as soon as `ready` is, false if it is not after a moment of asking again and again.
template <typename Ready>
bool spin_until(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int poll = 0; poll < kPollsPerLook; ++poll) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

// The parts of one call after the other. `state` holds the number of the call above the number of the next part: a
// thread that comes late cannot take a part of a call that is over, because its exchange fails. The other fields change
// only while no part is being run.
class Pool {
 public:
  void run(int32_t parts, int32_t threads, Body body, void* context) {
    std::unique_lock<std::mutex> call(call_mutex_, std::try_to_lock);
    if (!call.owns_lock()) {
      for (int32_t part = 0; part < parts; ++part) body(context, part, 0);
      return;
    }
    start(threads - 1);
    body_.store(body, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    parts_.store(parts, std::memory_order_relaxed);
    threads_.store(threads, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t number = (state_.load(std::memory_order_relaxed) >> kPartBits) + 1;
    publish(number << kPartBits);
    work(number, 0);
    const auto all_done = [&] { return done_.load(std::memory_order_acquire) == parts; };
    if (spin_until(all_done)) return;
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    finished_.wait(lock, all_done);
  }

  void stop() {
    const std::lock_guard<std::mutex> call(call_mutex_);
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
      stopping_.store(true, std::memory_order_relaxed);
    }
    wake_.notify_all();
    for (int32_t j = 0; j < started_; ++j) pthread_join(threads_started_[j], nullptr);
    started_ = 0;
    stopping_.store(false, std::memory_order_relaxed);
  }

 private:
  static constexpr int kPartBits = 16;

  struct Start {
    Pool* pool;
    int32_t thread;
  };

  // Fewer threads than wanted are no error.
  void start(int32_t wanted) {
    for (; started_ < wanted && started_ < kMaxThreads - 1; ++started_) {
      starts_[started_] = {this, started_ + 1};
      const auto enter = [](void* start) -> void* {
        static_cast<Start*>(start)->pool->wait_and_work(static_cast<Start*>(start)->thread);
        return nullptr;
      };
      if (pthread_create(&threads_started_[started_], nullptr, enter, &starts_[started_]) != 0) return;
    }
  }

  void publish(uint64_t state) {
    state_.store(state, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) == 0) return;
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
    }  // nobody is between looking and sleeping
    wake_.notify_all();
  }

  // Takes parts of call `number` until there are none.
  void work(uint64_t number, int32_t thread) {
    uint64_t state = state_.load(std::memory_order_acquire);
    while (state >> kPartBits == number) {
      const auto part = static_cast<int32_t>(state & ((1 << kPartBits) - 1));
      const int32_t parts = parts_.load(std::memory_order_relaxed);
      if (part >= parts || thread >= threads_.load(std::memory_order_relaxed)) return;
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
      body_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), part, thread);
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == parts && thread != 0) {
        {
          const std::lock_guard<std::mutex> lock(sleep_mutex_);
        }
        finished_.notify_one();
      }
      state = state_.load(std::memory_order_acquire);
    }
  }

  void wait_and_work(int32_t thread) {
    uint64_t seen = 0;
    for (;;) {
      const auto changed = [&] {
        return state_.load(std::memory_order_seq_cst) >> kPartBits != seen || stopping_.load(std::memory_order_relaxed);
      };
      if (!spin_until(changed)) {
        std::unique_lock<std::mutex> lock(sleep_mutex_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, changed);
        sleeping_.fetch_sub(1, std::memory_order_seq_cst);
      }
      if (stopping_.load(std::memory_order_relaxed)) return;
      seen = state_.load(std::memory_order_acquire) >> kPartBits;
      work(seen, thread);
    }
  }

  std::mutex call_mutex_;
  std::atomic<uint64_t> state_{0};
  std::atomic<Body> body_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int32_t> parts_{0};
  std::atomic<int32_t> threads_{0};
  std::atomic<int32_t> done_{0};

  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  std::atomic<int32_t> sleeping_{0};
  std::atomic<bool> stopping_{false};

  pthread_t threads_started_[kMaxThreads - 1];
  Start starts_[kMaxThreads - 1];
  int32_t started_ = 0;
};

Pool& pool() {
  static Pool* const pool = new Pool;  // never freed: layers may run until the very end
  return *pool;
}

}  // namespace

void run_parts(int32_t parts, int32_t threads, Body body, void* context) {
  threads = threads < kMaxThreads ? threads : kMaxThreads;
  if (parts == 1 || threads <= 1) {
    for (int32_t part = 0; part < parts; ++part) body(context, part, 0);
    return;
  }
  pool().run(parts, threads, body, context);
}

void stop_threads() { pool().stop(); }

}  // namespace voxpress
