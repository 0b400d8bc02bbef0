// Runs a layer as the runtimes' adapters want it: from packed weights or from codes, on as many threads as the runtime
// says, in scratch that the caller owns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"
#include "prepared/packed_store.h"

namespace voxpress {

// Where a layer's weights come from. `packed` null: from the codes of the file, expanded anew at each call (low
// memory).
template <typename Shape, typename Tensors>
struct LayerCall {
  const Shape* shape = nullptr;
  const Conv2dWeights* weights = nullptr;
  const PackedWeights* packed = nullptr;
  const Tensors* tensors = nullptr;
  void* scratch = nullptr;  // 64-byte aligned
  size_t scratch_bytes = 0;
  int32_t threads = 1;
};

// Bytes of scratch of run_layer, for all threads together; it need not survive the call. 0 for a bad shape.
size_t layer_scratch_bytes(const Conv2dShape& shape, bool packed, int32_t threads);
size_t layer_scratch_bytes(const Conv2dU8Shape& shape, bool packed, int32_t threads);

// The same bytes of output for any number of threads.
Status run_layer(const LayerCall<Conv2dShape, Conv2dTensors>& call);
Status run_layer(const LayerCall<Conv2dU8Shape, Conv2dU8Tensors>& call);

}  // namespace voxpress
