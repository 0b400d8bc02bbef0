// One delegated node: parsed when the runtime creates it, verified in prepare, computed in invoke.
#pragma once

#include <atomic>
#include <cstddef>

#include "abi.h"

namespace voxpress::tflite {

constexpr const char* kConv2dName = "voxpress.conv2d";
constexpr const char* kStatsPoolName = "voxpress.stats_pool";

// Scratch that all kernels of one delegated graph share (they run one after another). Counted, because the delegate and
// the kernels may be deleted in any order.
class Scratch {
 public:
  static Scratch* create();  // null if there is no memory; the caller holds one reference
  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release();
  bool reserve(size_t bytes);  // grows to at least `bytes`, 64-byte aligned; false if there is no memory
  void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Scratch() = default;
  ~Scratch();
  std::atomic<int> references_{1};
  void* data_ = nullptr;
  size_t size_ = 0;
};

// The registration of a delegate kernel. While nodes are being replaced, `building_scratch` names the scratch that
// kernels created on this thread take; it is null otherwise.
Registration kernel_registration();
extern thread_local Scratch* building_scratch;

}  // namespace voxpress::tflite
