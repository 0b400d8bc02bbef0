#include "prepared/memory_use.h"

#include <atomic>

namespace voxpress {
namespace {

std::atomic<size_t> weights{0};
std::atomic<size_t> most_scratch{0};

}  // namespace

void memory_use(size_t* weight_bytes, size_t* scratch_bytes) {
  *weight_bytes = weights.load(std::memory_order_relaxed);
  *scratch_bytes = most_scratch.load(std::memory_order_relaxed);
}

void count_weights(size_t bytes) { weights.fetch_add(bytes, std::memory_order_relaxed); }

void discount_weights(size_t bytes) { weights.fetch_sub(bytes, std::memory_order_relaxed); }

void count_scratch(size_t bytes) {
  size_t most = most_scratch.load(std::memory_order_relaxed);
  while (bytes > most && !most_scratch.compare_exchange_weak(most, bytes, std::memory_order_relaxed)) {
  }
}

}  // namespace voxpress
