// What conv2d_run hands to a variant, and the declarations of all variants.
#pragma once

#include <cstddef>

#include "conv/conv2d.h"

namespace voxpress {

// Everything checked; scratch 64-byte aligned and of the size that the family's *_scratch_bytes gives.
using Conv2dKernel = void (*)(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors,
                              unsigned char* scratch);

#define VOXPRESS_CONV2D_KERNEL(name)                                                              \
  void name(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors, \
            unsigned char* scratch);
#define VOXPRESS_DWCONV2D_KERNEL(name)                                                            \
  void name(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors, \
            unsigned char* scratch);
#include "kernels.inc"

size_t conv2d_portable_scratch_bytes(const Conv2dShape& shape);
size_t dwconv2d_portable_scratch_bytes(const Conv2dShape& shape);

}  // namespace voxpress
