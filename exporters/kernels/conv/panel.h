// Weights on their way from packed codes to the layouts of kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "conv/conv2d.h"

namespace voxpress {

// The palette of a layer as aligned floats; not set for 32 bits.
struct Palette {
  float values[256];
};

void load_palette(const Conv2dShape& shape, const Conv2dWeights& weights, Palette* palette);

// out[j] = weight first + j, for j < count, in the order of the file. Weights must have passed conv2d_check.
void decode_weights(const Conv2dShape& shape, const Conv2dWeights& weights, const Palette& palette, int64_t first,
                    int64_t count, float* out);

// rows of weights, each `row_weights` long, transposed: panel[k * stride + j] = weight[(first_row + j) * row_weights +
// k] for j < rows, and 0 for rows <= j < stride.
struct PanelSpec {
  int64_t row_weights;
  int64_t first_row;
  int64_t rows;
  int64_t stride;
};
void fill_panel(const Conv2dShape& shape, const Conv2dWeights& weights, const Palette& palette, const PanelSpec& spec,
                float* panel);

}  // namespace voxpress
