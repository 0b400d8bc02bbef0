#include "conv/panel.h"

#include <algorithm>
#include <cstring>

#include "bitpack/unpack.h"

namespace voxpress {
namespace {

constexpr int64_t kChunk = 64;  // weights decoded at a time: a multiple of eight, small enough for the stack

}  // namespace

void load_palette(const Conv2dShape& shape, const Conv2dWeights& weights, Palette* palette) {
  if (shape.bits != 32) std::memcpy(palette->values, weights.palette, weights.palette_bytes);
}

void decode_weights(const Conv2dShape& shape, const Conv2dWeights& weights, const Palette& palette, int64_t first,
                    int64_t count, float* out) {
  if (shape.bits == 32) {
    std::memcpy(out, static_cast<const unsigned char*>(weights.codes) + first * static_cast<int64_t>(sizeof(float)),
                static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t done = 0; done < count; done += kChunk) {
    uint8_t codes[kChunk];
    const int64_t step = std::min(kChunk, count - done);
    unpack_codes(weights.codes, weights.codes_bytes, shape.bits, first + done, step, codes);
    for (int64_t j = 0; j < step; ++j) out[done + j] = palette.values[codes[j]];
  }
}

void fill_panel(const Conv2dShape& shape, const Conv2dWeights& weights, const Palette& palette, const PanelSpec& spec,
                float* panel) {
  for (int64_t k0 = 0; k0 < spec.row_weights; k0 += kChunk) {
    const int64_t count = std::min(kChunk, spec.row_weights - k0);
    float* target = panel + k0 * spec.stride;
    float values[kChunk] = {};
    for (int64_t j = 0; j < spec.stride; ++j) {
      if (j < spec.rows) {
        decode_weights(shape, weights, palette, (spec.first_row + j) * spec.row_weights + k0, count, values);
      } else if (j == spec.rows) {
        std::fill(values, values + count, 0.0f);
      }
      for (int64_t k = 0; k < count; ++k) target[k * spec.stride + j] = values[k];
    }
  }
}

}  // namespace voxpress
