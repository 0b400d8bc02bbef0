#include "prepared/run_layer.h"

namespace voxpress {

size_t layer_scratch_bytes(const Conv2dShape& shape, bool packed, int32_t) {
  return packed ? conv2d_packed_scratch_bytes(shape) : conv2d_scratch_bytes(shape);
}

size_t layer_scratch_bytes(const Conv2dU8Shape& shape, bool packed, int32_t) {
  return packed ? conv2d_u8_packed_scratch_bytes(shape) : conv2d_u8_scratch_bytes(shape);
}

Status run_layer(const LayerCall<Conv2dShape, Conv2dTensors>& call) {
  if (call.packed == nullptr) {
    return conv2d_run(*call.shape, *call.weights, *call.tensors, call.scratch, call.scratch_bytes);
  }
  return conv2d_run_packed(*call.shape, call.packed->data(), call.packed->size_bytes(), *call.tensors, call.scratch,
                           call.scratch_bytes);
}

Status run_layer(const LayerCall<Conv2dU8Shape, Conv2dU8Tensors>& call) {
  if (call.packed == nullptr) {
    return conv2d_u8_run(*call.shape, *call.weights, *call.tensors, call.scratch, call.scratch_bytes);
  }
  return conv2d_u8_run_packed(*call.shape, call.packed->data(), call.packed->size_bytes(), *call.tensors, call.scratch,
                              call.scratch_bytes);
}

}  // namespace voxpress
