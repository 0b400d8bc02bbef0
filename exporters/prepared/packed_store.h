// Keeps the packed weights of layers between calls, found again by what the layer is, never by where it lies.
//
// A runtime may free a model and map another to the same address without telling us, so an address proves nothing. The
// key is 128 bits hashed from geometry, width, quantization, codes, palette, scale and bias; equal layers of several
// models share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "base/isa.h"
#include "base/status.h"
#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"

namespace voxpress {

struct LayerKey {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const LayerKey& other) const { return low == other.low && high == other.high; }
};

// Hashes everything that packed weights depend on. Reads the weights once.
LayerKey layer_key(const Conv2dShape& shape, const Conv2dWeights& weights);
LayerKey layer_key(const Conv2dU8Shape& shape, const Conv2dWeights& weights);

// The packed weights of one layer. Counted: lives as long as the store or anybody else holds it.
class PackedWeights {
 public:
  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release();
  const void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  friend class PackedStore;
  PackedWeights() = default;
  ~PackedWeights();
  // Packed now, with one reference. Null if there is no memory, or with a status other than kOk if it cannot be packed.
  template <typename Shape>
  static PackedWeights* create(const Shape& shape, const Conv2dWeights& weights, Status* status);

  std::atomic<int> references_{1};
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
  // The store's own notes, under its lock.
  LayerKey key_;
  uint64_t last_used_ = 0;
  PackedWeights* next_ = nullptr;
};

// Holds up to `limit_bytes` of packed weights. May be used from several threads at once.
//
// A layer that does not fit is not packed, and its caller runs it from codes; a layer in use is never thrown out for
// it, because a model larger than the limit would then pack everything anew at each run. Only layers that were not
// asked for while all others were, three times over, give way: those of models that are gone.
class PackedStore {
 public:
  explicit constexpr PackedStore(size_t limit_bytes) : limit_bytes_(limit_bytes) {}
  ~PackedStore() { clear(); }
  PackedStore(const PackedStore&) = delete;
  PackedStore& operator=(const PackedStore&) = delete;

  // The layer's packed weights, packed now if need be; the caller releases them. Null if there is no room or no memory,
  // then *status is kOk, or if the layer is refused, then it says why.
  PackedWeights* get(const Conv2dShape& shape, const Conv2dWeights& weights, Status* status);
  PackedWeights* get(const Conv2dU8Shape& shape, const Conv2dWeights& weights, Status* status);

  // Forgets all and returns how many bytes that was; what callers still hold stays theirs.
  size_t clear();

 private:
  template <typename Shape>
  PackedWeights* get_any(const Shape& shape, const Conv2dWeights& weights, Status* status);
  PackedWeights* find(const LayerKey& key);
  void drop_stale(size_t wanted_bytes);

  std::mutex mutex_;
  const size_t limit_bytes_;
  size_t held_bytes_ = 0;
  uint64_t count_ = 0;
  uint64_t clock_ = 0;  // calls of get
  PackedWeights* first_ = nullptr;
};

}  // namespace voxpress
