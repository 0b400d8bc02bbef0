#include "prepared/memory_use.h"

#include <atomic>

namespace voxpress {
namespace {

std::atomic<size_t> weight_bytes{0};
std::atomic<size_t> scratch_bytes{0};

}  // namespace

MemoryUse memory_use() {
  return {weight_bytes.load(std::memory_order_relaxed), scratch_bytes.load(std::memory_order_relaxed)};
}

void count_weights(size_t bytes) { weight_bytes.fetch_add(bytes, std::memory_order_relaxed); }

void discount_weights(size_t bytes) { weight_bytes.fetch_sub(bytes, std::memory_order_relaxed); }

void count_scratch(size_t bytes) {
  size_t most = scratch_bytes.load(std::memory_order_relaxed);
  while (bytes > most && !scratch_bytes.compare_exchange_weak(most, bytes, std::memory_order_relaxed)) {
  }
}

}  // namespace voxpress
