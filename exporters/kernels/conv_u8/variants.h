// What conv2d_u8_pack and conv2d_u8_run_packed ask of a variant, and the declarations of all variants.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "conv_u8/conv2d_u8.h"
#include "conv_u8/weights.h"

namespace voxpress {

// How a sum becomes an output, for all variants alike and in this order, each line rounded to float once:
//
//   t = sum * multiplier[o] + (bias[o] + residual_shift)
//                                      Winograd's algorithm has both in the dequantisation, see output_of_products
//   t = window * offset[o] + t         two-valued palettes that are not +-a only; window: sum of the group's inputs;
//                                      again part of Winograd's dequantisation
//   t = residual * res_multiplier + t  if there is a residual; bytes as they are, their zero point is in the shift
//   float: relu(t);  u8: round(min(max(t, low), 255))
//
// The bias is scaled to the output's steps, with its zero point in it.
//
// Arrays are of padded_channels() floats, 64-byte aligned, with zeros behind the last channel.
struct Finish {
  const float* multiplier;
  const float* offset;  // null if there is none
  float window_ratio;   // offset[o] / multiplier[o], the same for all o; 0 if there is none
  const float* bias;
  float residual_shift;  // 0 without a residual of bytes
  float res_multiplier;
  float low;
};

constexpr int64_t kU8ChannelRound = 64;

// One checked call. Scratch is 64-byte aligned and as large as the variant asked for.
struct Conv2dU8Call {
  const Conv2dU8Shape* shape;
  const unsigned char* prepared;  // what pack wrote, 64-byte aligned
  const Conv2dU8Tensors* tensors;
  Finish finish;
  Share share;
  unsigned char* scratch;
};

struct Conv2dU8Packing {
  const Conv2dU8Shape* shape;
  const Conv2dWeights* weights;
  const Int8Palette* palette;
  Share share;
  unsigned char* prepared;
};

struct Conv2dU8Kernel {
  Isa isa;
  bool (*takes)(const Conv2dU8Shape& shape);
  int64_t (*prepared_bytes)(const Conv2dU8Shape& shape);  // depends neither on batch nor on frames
  void (*pack)(const Conv2dU8Packing& packing);
  int64_t (*scratch_bytes)(const Conv2dU8Shape& shape);
  void (*run)(const Conv2dU8Call& call);
};

// Whether a layer is one for F(4x4,3x3) or F(2x2,3x3): because it asks for it, or leaves it to us.
bool winograd4_u8_takes(const Conv2dU8Shape& shape);
bool winograd2_u8_takes(const Conv2dU8Shape& shape);

#define VOXPRESS_CONV2DU8_KERNEL(name) extern const Conv2dU8Kernel name;
#include "kernels.inc"

}  // namespace voxpress
