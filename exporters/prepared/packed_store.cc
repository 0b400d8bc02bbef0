#include "prepared/packed_store.h"

#include <cstring>
#include <new>

#include "prepared/memory_use.h"

namespace voxpress {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr uint64_t kStaleAfterRounds = 3;

// Eight independent chains of 64 bits, each step a bijection of the chain, so that one changed word always changes it;
// the shift lets high bits, which a product only carries upwards, act on low ones.
class Hash {
 public:
  void add(const void* data, size_t bytes) {
    const auto* at = static_cast<const unsigned char*>(data);
    add_word(0, bytes);
    for (; bytes >= sizeof(uint64_t) * kChains; bytes -= sizeof(uint64_t) * kChains) {
      for (int j = 0; j < kChains; ++j, at += sizeof(uint64_t)) {
        uint64_t word;
        std::memcpy(&word, at, sizeof(word));
        add_word(j, word);
      }
    }
    for (int j = 0; bytes > 0; ++j) {
      const size_t part = bytes < sizeof(uint64_t) ? bytes : sizeof(uint64_t);
      uint64_t word = 0;
      std::memcpy(&word, at, part);
      add_word(j, word);
      at += part;
      bytes -= part;
    }
  }

  LayerKey key() const {
    uint64_t low = 0x243f6a8885a308d3;
    uint64_t high = 0x13198a2e03707344;
    for (const uint64_t chain : chains_) {
      low = step(low, chain);
      high = step(high ^ (high >> 31), chain ^ (chain << 21));
    }
    return {low, high};
  }

 private:
  static constexpr int kChains = 8;
  static uint64_t step(uint64_t state, uint64_t word) {
    state = (state ^ word) * 0x9e3779b97f4a7c15;
    return state ^ (state >> 29);
  }
  void add_word(int chain, uint64_t word) { chains_[chain] = step(chains_[chain], word); }

  uint64_t chains_[kChains] = {1, 2, 3, 4, 5, 6, 7, 8};
};

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
  return hash.key();
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
  return hash.key();
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
