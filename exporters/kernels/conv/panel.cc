#include "conv/panel.h"

#include <algorithm>
#include <cstring>

#include "bitpack/unpack.h"

namespace voxpress {
namespace {

constexpr int kChunk = 64;  // codes unpacked at a time per row: a multiple of eight, small enough for the stack

}  // namespace

void load_palette(const Conv2dShape& shape, const Conv2dWeights& weights, Palette* palette) {
  if (shape.bits != 32) std::memcpy(palette->values, weights.palette, weights.palette_bytes);
}

void fill_panel(const Conv2dShape& shape, const Conv2dWeights& weights, const Palette& palette, const PanelSpec& spec,
                float* panel) {
  for (int64_t k0 = 0; k0 < spec.row_weights; k0 += kChunk) {
    const int count = static_cast<int>(std::min<int64_t>(kChunk, spec.row_weights - k0));
    float* target = panel + k0 * spec.stride;
    for (int j = 0; j < spec.stride; ++j) {
      if (j >= spec.rows) {
        for (int k = 0; k < count; ++k) target[k * spec.stride + j] = 0.0f;
        continue;
      }
      const int64_t first = (spec.first_row + j) * spec.row_weights + k0;
      if (shape.bits == 32) {
        float values[kChunk];
        load_floats(weights.codes, first, count, count, values);
        for (int k = 0; k < count; ++k) target[k * spec.stride + j] = values[k];
        continue;
      }
      uint8_t codes[kChunk];
      unpack_codes(weights.codes, weights.codes_bytes, shape.bits, first, count, codes);
      for (int k = 0; k < count; ++k) target[k * spec.stride + j] = palette.values[codes[k]];
    }
  }
}

void load_floats(const void* source, int64_t first, int count, int size, float* lanes) {
  std::memcpy(lanes, static_cast<const unsigned char*>(source) + first * static_cast<int64_t>(sizeof(float)),
              static_cast<size_t>(count) * sizeof(float));
  std::fill(lanes + count, lanes + size, 0.0f);
}

}  // namespace voxpress
