// The packed store for ctypes: flat functions, nothing else.
#include <cstddef>
#include <cstdint>
#include <new>

#include "prepared/packed_store.h"

#define VOXPRESS_EXPORT extern "C" __attribute__((visibility("default")))

using voxpress::Conv2dShape;
using voxpress::Conv2dWeights;
using voxpress::PackedStore;
using voxpress::PackedWeights;

// The beginning of the VoxpressConv2d of the kernels' C surface.
struct VoxpressLayer {
  Conv2dShape shape;
  Conv2dWeights weights;
};

VOXPRESS_EXPORT PackedStore* voxpress_store_create(size_t limit_bytes) {
  return new (std::nothrow) PackedStore(limit_bytes);
}

VOXPRESS_EXPORT void voxpress_store_destroy(PackedStore* store) { delete store; }

VOXPRESS_EXPORT size_t voxpress_store_clear(PackedStore* store) { return store->clear(); }

VOXPRESS_EXPORT PackedWeights* voxpress_store_get(PackedStore* store, const VoxpressLayer* layer, int32_t* status) {
  voxpress::Status found = voxpress::Status::kOk;
  PackedWeights* packed = store->get(layer->shape, layer->weights, &found);
  *status = static_cast<int32_t>(found);
  return packed;
}

VOXPRESS_EXPORT void voxpress_packed_release(PackedWeights* packed) { packed->release(); }

VOXPRESS_EXPORT const void* voxpress_packed_data(const PackedWeights* packed) { return packed->data(); }

VOXPRESS_EXPORT size_t voxpress_packed_bytes(const PackedWeights* packed) { return packed->size_bytes(); }
