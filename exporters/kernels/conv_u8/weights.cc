#include "conv_u8/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bitpack/unpack.h"

namespace voxpress {
namespace {

constexpr float kLargest = 127.0f;
constexpr int64_t kChunk = 64;

// value / step to the nearest integer of -127..127; what is no number becomes 0.
int8_t to_int8(float value, float step) {
  const float steps = step > 0.0f ? value / step : 0.0f;
  if (!(steps >= -kLargest)) return steps < 0.0f ? int8_t{-127} : int8_t{0};
  return static_cast<int8_t>(std::nearbyint(std::min(steps, kLargest)));
}

int64_t row_weights(const Conv2dShape& s) { return s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups); }

// The step of a channel of float weights.
float float_weights_step(const Conv2dShape& shape, const Conv2dWeights& weights, int64_t channel) {
  const int64_t count = row_weights(shape);
  float largest = 0.0f;
  for (int64_t k = 0; k < count; ++k) {
    largest = std::max(largest, std::fabs(float_at(weights.codes, channel * count + k)));
  }
  return largest / kLargest;
}

}  // namespace

float float_at(const void* floats, int64_t index) {
  float value;
  std::memcpy(&value, static_cast<const unsigned char*>(floats) + index * static_cast<int64_t>(sizeof(float)),
              sizeof(value));
  return value;
}

double channel_scale(const Conv2dU8Shape& shape, const Conv2dWeights& weights, int64_t channel) {
  const double in_scale = shape.input == Element::kU8 ? static_cast<double>(shape.in.scale) : 1.0;
  const double out_scale = shape.output == Element::kU8 ? static_cast<double>(shape.out.scale) : 1.0;
  return static_cast<double>(float_at(weights.scale, channel)) * in_scale / out_scale;
}

float channel_multiplier(const Conv2dU8Shape& shape, const Conv2dWeights& weights, const Int8Palette& palette,
                         int64_t channel) {
  const float step = shape.conv.bits == 32 ? float_weights_step(shape.conv, weights, channel) : palette.step;
  return static_cast<float>(channel_scale(shape, weights, channel) * static_cast<double>(step));
}

void load_int8_palette(const Conv2dShape& shape, const Conv2dWeights& weights, Int8Palette* palette) {
  std::memset(palette->values, 0, sizeof(palette->values));
  palette->step = 0.0f;
  palette->middle = 0.0f;
  if (shape.bits == 32) return;
  if (shape.bits == 1) {
    const float low = float_at(weights.palette, 0);
    const float high = float_at(weights.palette, 1);
    palette->values[0] = -1;
    palette->values[1] = 1;
    palette->step = 0.5f * (high - low);
    palette->middle = 0.5f * (high + low);
    if (palette->step == 0.0f) {  // one value after all
      palette->values[0] = 1;
      palette->step = low;
      palette->middle = 0.0f;
    }
    return;
  }
  const int count = 1 << shape.bits;
  float largest = 0.0f;
  for (int j = 0; j < count; ++j) largest = std::max(largest, std::fabs(float_at(weights.palette, j)));
  palette->step = largest / kLargest;
  for (int j = 0; j < count; ++j) palette->values[j] = to_int8(float_at(weights.palette, j), palette->step);
}

void decode_int8(const Conv2dShape& shape, const Conv2dWeights& weights, const Int8Palette& palette, int64_t channel,
                 int64_t first, int64_t count, int8_t* out) {
  const int64_t start = channel * row_weights(shape) + first;
  if (shape.bits == 32) {
    const float step = float_weights_step(shape, weights, channel);
    for (int64_t j = 0; j < count; ++j) out[j] = to_int8(float_at(weights.codes, start + j), step);
    return;
  }
  for (int64_t done = 0; done < count; done += kChunk) {
    uint8_t codes[kChunk];
    const int64_t part = std::min(kChunk, count - done);
    unpack_codes(weights.codes, weights.codes_bytes, shape.bits, start + done, part, codes);
    for (int64_t j = 0; j < part; ++j) out[done + j] = palette.values[codes[j]];
  }
}

}  // namespace voxpress
