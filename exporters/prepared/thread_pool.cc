#include "prepared/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "base/share.h"

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

constexpr size_t kLine = 128;  // of the cache, or two that are fetched together: no two threads write to the same

// Parts [next, end) of call `number` that nobody has taken yet, as one number that is exchanged as a whole: a thread
// that comes late cannot take a part of a call that is over, because its exchange fails.
class alignas(kLine) Parts {
 public:
  void begin(uint32_t number, int32_t next, int32_t end) {
    state_.store(pack(number, next, end), std::memory_order_release);
  }

  // The first of them, or the last; -1 if there is none.
  int32_t take(uint32_t number, bool first) {
    uint64_t state = state_.load(std::memory_order_acquire);
    for (;;) {
      const auto next = static_cast<int32_t>(state >> kPartBits & kPartMask);
      const auto end = static_cast<int32_t>(state & kPartMask);
      if (state >> (2 * kPartBits) != number || next == end) return -1;
      const uint64_t rest = first ? pack(number, next + 1, end) : pack(number, next, end - 1);
      if (state_.compare_exchange_weak(state, rest, std::memory_order_acq_rel)) return first ? next : end - 1;
    }
  }

 private:
  static constexpr int kPartBits = 16;
  static constexpr uint64_t kPartMask = (1 << kPartBits) - 1;

  static uint64_t pack(uint32_t number, int32_t next, int32_t end) {
    return static_cast<uint64_t>(number) << (2 * kPartBits) | static_cast<uint64_t>(next) << kPartBits |
           static_cast<uint64_t>(end);
  }

  std::atomic<uint64_t> state_{0};
};

// One call after the other. What describes a call changes only while no part is being run.
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
    count_.store(parts, std::memory_order_relaxed);
    threads_.store(threads, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const uint32_t number = number_.load(std::memory_order_relaxed) + 1;
    for (int32_t thread = 0; thread < threads; ++thread) {
      const Range own = share_of(parts, {thread, threads});
      parts_[thread].begin(number, static_cast<int32_t>(own.begin), static_cast<int32_t>(own.end));
    }
    publish(number);
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

  void publish(uint32_t number) {
    number_.store(number, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) == 0) return;
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
    }  // nobody is between looking and sleeping
    wake_.notify_all();
  }

  // Takes the thread's own parts of call `number`, then what others have left, from the other end: in the layers of a
  // network a thread mostly reads what it wrote itself.
  void work(uint32_t number, int32_t thread) {
    const int32_t threads = threads_.load(std::memory_order_relaxed);
    if (thread >= threads) return;
    for (int32_t j = 0; j < threads; ++j) {
      Parts& parts = parts_[(thread + j) % threads];
      for (int32_t part = parts.take(number, j == 0); part >= 0; part = parts.take(number, j == 0)) {
        body_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), part, thread);
        finish_part(thread);
      }
    }
  }

  void finish_part(int32_t thread) {
    const int32_t count = count_.load(std::memory_order_relaxed);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 < count || thread == 0) return;
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
    }
    finished_.notify_one();
  }

  void wait_and_work(int32_t thread) {
    uint32_t seen = 0;
    for (;;) {
      const auto changed = [&] {
        return number_.load(std::memory_order_seq_cst) != seen || stopping_.load(std::memory_order_relaxed);
      };
      if (!spin_until(changed)) {
        std::unique_lock<std::mutex> lock(sleep_mutex_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, changed);
        sleeping_.fetch_sub(1, std::memory_order_seq_cst);
      }
      if (stopping_.load(std::memory_order_relaxed)) return;
      seen = number_.load(std::memory_order_acquire);
      work(seen, thread);
    }
  }

  std::mutex call_mutex_;
  std::atomic<Body> body_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int32_t> count_{0};  // of all parts
  std::atomic<int32_t> threads_{0};
  Parts parts_[kMaxThreads];  // of each thread
  alignas(kLine) std::atomic<int32_t> done_{0};
  alignas(kLine) std::atomic<uint32_t> number_{0};  // of the call; what waiting threads look at

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
