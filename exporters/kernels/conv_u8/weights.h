// Weights of the integer kernels on their way from packed codes to int8.
#pragma once

#include <cstdint>

#include "conv_u8/conv2d_u8.h"

namespace voxpress {

// weight = step * integer + middle.
struct Int8Palette {
  int8_t values[256];
  float step;
  float middle;  // other than zero for two-valued palettes only: these are middle -+ step
};

// For float weights, whose steps are those of their channels, the step is 0.
void load_int8_palette(const Conv2dShape& shape, const Conv2dWeights& weights, Int8Palette* palette);

// A float of a tensor in the file, which need not be aligned.
float float_at(const void* floats, int64_t index);

// What real inputs times weights are multiplied by, in steps of the output.
double channel_scale(const Conv2dU8Shape& shape, const Conv2dWeights& weights, int64_t channel);

// What sums of integers are multiplied by: Finish::multiplier.
float channel_multiplier(const Conv2dU8Shape& shape, const Conv2dWeights& weights, const Int8Palette& palette,
                         int64_t channel);

// out[j] = the integer of weight first + j of output channel `channel`, for j < count, in the order of the file.
void decode_int8(const Conv2dShape& shape, const Conv2dWeights& weights, const Int8Palette& palette, int64_t channel,
                 int64_t first, int64_t count, int8_t* out);

}  // namespace voxpress
