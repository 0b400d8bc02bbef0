// What conv2d_pack and conv2d_run ask of a variant, and the declarations of all variants.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "base/share.h"
#include "conv/conv2d.h"

namespace voxpress {

// One checked call. Scratch is 64-byte aligned and as large as the variant asked for.
struct Conv2dCall {
  const Conv2dShape* shape;
  const Conv2dWeights* weights;  // of variants without pack; null for the others
  const float* scale;            // out_channels floats, 64-byte aligned, then zeros up to kChannelRound
  const float* bias;             // likewise
  const float* prepared;         // what pack wrote, 64-byte aligned; null for variants without pack
  const Conv2dTensors* tensors;
  unsigned char* scratch;
  Share share;  // of positions or tiles
};

// Scale and bias are padded to a multiple of this many channels: the widest panel of any variant.
constexpr int64_t kChannelRound = 64;

struct Conv2dKernel {
  Isa isa;
  bool (*takes)(const Conv2dShape& shape);
  // Floats that pack writes; null, like pack, for variants that read the codes themselves. Neither depends on batch and
  // frames.
  int64_t (*prepared_floats)(const Conv2dShape& shape);
  void (*pack)(const Conv2dShape& shape, const Conv2dWeights& weights, float* prepared);
  int64_t (*scratch_bytes)(const Conv2dShape& shape);  // enough for every share
  void (*run)(const Conv2dCall& call);
};

#define VOXPRESS_CONV2D_KERNEL(name) extern const Conv2dKernel name;
#include "kernels.inc"

}  // namespace voxpress
