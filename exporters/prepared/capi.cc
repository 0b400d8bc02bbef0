// The packed store and run_layer for ctypes: flat functions, nothing else.
#include <cstddef>
#include <cstdint>
#include <new>

#include "prepared/hash.h"
#include "prepared/packed_store.h"
#include "prepared/run_layer.h"
#include "prepared/thread_pool.h"

#define VOXPRESS_EXPORT extern "C" __attribute__((visibility("default")))

using voxpress::Conv2dShape;
using voxpress::Conv2dTensors;
using voxpress::Conv2dU8Shape;
using voxpress::Conv2dU8Tensors;
using voxpress::Conv2dWeights;
using voxpress::PackedStore;
using voxpress::PackedWeights;

// The beginning of the VoxpressConv2d and VoxpressConv2dU8 of the kernels' C surface.
template <typename Shape, typename Tensors>
struct Layer {
  Shape shape;
  Conv2dWeights weights;
  Tensors tensors;
  void* scratch;
  size_t scratch_bytes;
};
using VoxpressLayer = Layer<Conv2dShape, Conv2dTensors>;
using VoxpressLayerU8 = Layer<Conv2dU8Shape, Conv2dU8Tensors>;

namespace {

template <typename Any>
PackedWeights* get(PackedStore* store, const Any& layer, int32_t* status) {
  voxpress::Status found = voxpress::Status::kOk;
  PackedWeights* packed = store->get(layer.shape, layer.weights, &found);
  *status = static_cast<int32_t>(found);
  return packed;
}

template <typename Shape, typename Tensors>
int32_t run(const Layer<Shape, Tensors>& layer, const PackedWeights* packed, int32_t threads) {
  voxpress::LayerCall<Shape, Tensors> call;
  call.shape = &layer.shape;
  call.weights = &layer.weights;
  call.packed = packed;
  call.tensors = &layer.tensors;
  call.scratch = layer.scratch;
  call.scratch_bytes = layer.scratch_bytes;
  call.threads = threads;
  return static_cast<int32_t>(voxpress::run_layer(call));
}

}  // namespace

VOXPRESS_EXPORT PackedStore* voxpress_store_create(size_t limit_bytes) {
  return new (std::nothrow) PackedStore(limit_bytes);
}

VOXPRESS_EXPORT void voxpress_store_destroy(PackedStore* store) { delete store; }

VOXPRESS_EXPORT size_t voxpress_store_clear(PackedStore* store) { return store->clear(); }

VOXPRESS_EXPORT PackedWeights* voxpress_store_get(PackedStore* store, const VoxpressLayer* layer, int32_t* status) {
  return get(store, *layer, status);
}

VOXPRESS_EXPORT PackedWeights* voxpress_store_get_u8(PackedStore* store, const VoxpressLayerU8* layer,
                                                     int32_t* status) {
  return get(store, *layer, status);
}

VOXPRESS_EXPORT size_t voxpress_layer_scratch_bytes(const VoxpressLayer* layer, bool packed, int32_t threads) {
  return voxpress::layer_scratch_bytes(layer->shape, packed, threads);
}

VOXPRESS_EXPORT size_t voxpress_layer_scratch_bytes_u8(const VoxpressLayerU8* layer, bool packed, int32_t threads) {
  return voxpress::layer_scratch_bytes(layer->shape, packed, threads);
}

VOXPRESS_EXPORT int32_t voxpress_run_layer(const VoxpressLayer* layer, const PackedWeights* packed, int32_t threads) {
  return run(*layer, packed, threads);
}

VOXPRESS_EXPORT int32_t voxpress_run_layer_u8(const VoxpressLayerU8* layer, const PackedWeights* packed,
                                              int32_t threads) {
  return run(*layer, packed, threads);
}

VOXPRESS_EXPORT void voxpress_stop_threads() { voxpress::stop_threads(); }

VOXPRESS_EXPORT void voxpress_packed_release(PackedWeights* packed) { packed->release(); }

VOXPRESS_EXPORT const void* voxpress_packed_data(const PackedWeights* packed) { return packed->data(); }

VOXPRESS_EXPORT size_t voxpress_packed_bytes(const PackedWeights* packed) { return packed->size_bytes(); }

// 0 where there is no AES, else 1 and the hash.
VOXPRESS_EXPORT int32_t voxpress_hash(int32_t aes, const void* data, size_t bytes, uint64_t* value) {
  const voxpress::HashBlocks blocks = aes != 0 ? voxpress::hash_blocks_aes() : voxpress::hash_blocks_portable;
  if (blocks == nullptr) return 0;
  voxpress::Hash hash(blocks);
  hash.add(data, bytes);
  const voxpress::Hash::Value found = hash.value();
  value[0] = found.low;
  value[1] = found.high;
  return 1;
}
