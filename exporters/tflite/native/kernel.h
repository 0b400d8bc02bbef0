// One delegated node: parsed when the runtime creates it, verified in prepare, computed in invoke.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "abi.h"
#include "prepared/packed_store.h"

namespace voxpress::tflite {

constexpr const char* kConv2dName = "voxpress.conv2d";
constexpr const char* kConv2dU8Name = "voxpress.conv2d_u8";
constexpr const char* kStatsPoolName = "voxpress.stats_pool";

// Packed weights that all graphs of one delegate share. Counted, because the delegate and the kernels may be deleted in
// any order; freed with the last of them.
class Store {
 public:
  static Store* create(bool low_memory);  // null if there is no memory; the caller holds one reference
  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release();
  bool low_memory() const { return low_memory_; }
  PackedStore& packed() { return packed_; }

 private:
  explicit Store(bool low_memory) : low_memory_(low_memory) { count_.fetch_add(1, std::memory_order_relaxed); }
  std::atomic<int> references_{1};
  const bool low_memory_;
  static std::atomic<int> count_;
  PackedStore packed_{SIZE_MAX};  // ends with the delegate, so it needs no limit
};

// Scratch that all kernels of one delegated graph share (they run one after another). Counted like the store.
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

// What the kernels of a graph take when they are created.
struct Building {
  Store* store;
  Scratch* scratch;
};

// The node that a delegate kernel stands for.
struct CustomNode {
  const Node* node;
  const char* name;
  const void* options;
  size_t options_bytes;
};

// Null, or why there is none: the text is for the runtime's error message.
const char* find_node(Context* context, const DelegateParams& params, CustomNode* found);

// Gives a tensor, by its index, a new shape; false if the runtime does not take it. Sizes fit in 32 bits.
bool resize_tensor(Context* context, int32_t index, const int64_t* dims, int32_t rank);

// The registration of a delegate kernel. While nodes are being replaced, `building` says what kernels created on this
// thread take; it is null otherwise.
Registration kernel_registration();
extern thread_local const Building* building;

}  // namespace voxpress::tflite
