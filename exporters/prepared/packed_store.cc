#include "prepared/packed_store.h"

#include <new>

#include "prepared/hash.h"
#include "prepared/memory_use.h"

namespace voxpress {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr uint64_t kStaleAfterRounds = 3;

// What packed weights depend on; batch, frames, mel, padding and, in mode `exact`, relu have no part in them.
void add_layer(const Conv2dShape& s, const Conv2dWeights& weights, Hash* hash) {
  const int64_t numbers[] = {static_cast<int64_t>(selected_isa()),
                             s.bits,
                             s.in_channels,
                             s.out_channels,
                             s.kernel_frames,
                             s.kernel_mel,
                             s.stride_frames,
                             s.stride_mel,
                             s.groups};
  hash->add(numbers, sizeof(numbers));
  hash->add(weights.codes, weights.codes_bytes);
  hash->add(weights.palette, weights.palette_bytes);
  hash->add(weights.scale, weights.scale_bytes);
  hash->add(weights.bias, weights.bias_bytes);
}

LayerKey key_of(const Hash& hash) {
  const Hash::Value value = hash.value();
  return {value.low, value.high};
}

// The functions of either mode under one name.
size_t packed_bytes(const Conv2dShape& shape) { return conv2d_packed_bytes(shape); }
size_t packed_bytes(const Conv2dU8Shape& shape) { return conv2d_u8_packed_bytes(shape); }
Status check(const Conv2dShape& shape, const Conv2dWeights& weights) { return conv2d_check(shape, weights); }
Status check(const Conv2dU8Shape& shape, const Conv2dWeights& weights) { return conv2d_u8_check(shape, weights); }
Status pack(const Conv2dShape& shape, const Conv2dWeights& weights, void* packed, size_t bytes) {
  return conv2d_pack(shape, weights, packed, bytes);
}
Status pack(const Conv2dU8Shape& shape, const Conv2dWeights& weights, void* packed, size_t bytes) {
  return conv2d_u8_pack(shape, weights, packed, bytes);
}

}  // namespace

LayerKey layer_key(const Conv2dShape& shape, const Conv2dWeights& weights) {
  Hash hash;
  add_layer(shape, weights, &hash);
  return key_of(hash);
}

LayerKey layer_key(const Conv2dU8Shape& shape, const Conv2dWeights& weights) {
  Hash hash;
  add_layer(shape.conv, weights, &hash);
  const int64_t numbers[] = {shape.in.zero,
                             shape.res.zero,
                             shape.out.zero,
                             static_cast<int64_t>(shape.input),
                             static_cast<int64_t>(shape.residual),
                             static_cast<int64_t>(shape.output),
                             static_cast<int64_t>(shape.algorithm),
                             shape.conv.relu ? 1 : 0};
  const float scales[] = {shape.in.scale, shape.res.scale, shape.out.scale};
  hash.add(numbers, sizeof(numbers));
  hash.add(scales, sizeof(scales));
  return key_of(hash);
}

void PackedWeights::release() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

PackedWeights::~PackedWeights() {
  if (data_ != nullptr) discount_weights(size_bytes_);
  ::operator delete(data_, kAlignment);
}

template <typename Shape>
PackedWeights* PackedWeights::create(const Shape& shape, const Conv2dWeights& weights, Status* status) {
  auto* packed = new (std::nothrow) PackedWeights;
  if (packed == nullptr) return nullptr;
  packed->size_bytes_ = packed_bytes(shape);
  packed->data_ = ::operator new(packed->size_bytes_, kAlignment, std::nothrow);
  if (packed->data_ != nullptr) count_weights(packed->size_bytes_);
  if (packed->data_ != nullptr) *status = pack(shape, weights, packed->data_, packed->size_bytes_);
  if (packed->data_ != nullptr && *status == Status::kOk) return packed;
  packed->release();
  return nullptr;
}

PackedWeights* PackedStore::find(const LayerKey& key) {
  for (PackedWeights* packed = first_; packed != nullptr; packed = packed->next_) {
    if (packed->key_ == key) return packed;
  }
  return nullptr;
}

void PackedStore::drop_stale(size_t wanted_bytes) {
  const uint64_t oldest = kStaleAfterRounds * count_;
  for (PackedWeights** link = &first_; *link != nullptr && held_bytes_ + wanted_bytes > limit_bytes_;) {
    PackedWeights* packed = *link;
    if (clock_ - packed->last_used_ <= oldest) {
      link = &packed->next_;
      continue;
    }
    *link = packed->next_;
    held_bytes_ -= packed->size_bytes_;
    --count_;
    packed->release();
  }
}

template <typename Shape>
PackedWeights* PackedStore::get_any(const Shape& shape, const Conv2dWeights& weights, Status* status) {
  *status = check(shape, weights);
  if (*status != Status::kOk) return nullptr;
  const LayerKey key = layer_key(shape, weights);
  const size_t size_bytes = packed_bytes(shape);
  const std::lock_guard<std::mutex> lock(mutex_);
  ++clock_;
  PackedWeights* packed = find(key);
  if (packed == nullptr) {
    if (held_bytes_ + size_bytes > limit_bytes_) drop_stale(size_bytes);
    if (held_bytes_ + size_bytes > limit_bytes_) return nullptr;
    packed = PackedWeights::create(shape, weights, status);
    if (packed == nullptr) return nullptr;
    packed->key_ = key;
    packed->next_ = first_;
    first_ = packed;
    held_bytes_ += size_bytes;
    ++count_;
  }
  packed->last_used_ = clock_;
  packed->retain();
  return packed;
}

PackedWeights* PackedStore::get(const Conv2dShape& shape, const Conv2dWeights& weights, Status* status) {
  return get_any(shape, weights, status);
}

PackedWeights* PackedStore::get(const Conv2dU8Shape& shape, const Conv2dWeights& weights, Status* status) {
  return get_any(shape, weights, status);
}

size_t PackedStore::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  while (first_ != nullptr) {
    PackedWeights* packed = first_;
    first_ = packed->next_;
    packed->release();
  }
  const size_t forgotten_bytes = held_bytes_;
  held_bytes_ = 0;
  count_ = 0;
  return forgotten_bytes;
}

}  // namespace voxpress
