// Weights on their way from packed codes into a kernel's scratch: a panel is float [taps * depth][kPanelLanes] (or
// [taps][channels] for depthwise), output channels innermost.
#pragma once

#include <cstddef>
#include <cstdint>

#include "conv/conv2d.h"

namespace voxpress {

constexpr int kPanelLanes = 8;

// The palette of a layer as aligned floats; empty for 32 bits.
struct Palette {
  float values[256];
};

void load_palette(const Conv2dShape& shape, const Conv2dWeights& weights, Palette* palette);

// rows of weights, each `row_weights` long, transposed: panel[k * stride + j] = weight[(first_row + j) * row_weights +
// k] for j < rows, and 0 for rows <= j < stride. Weights must have passed conv2d_check.
struct PanelSpec {
  int64_t row_weights;
  int64_t first_row;
  int rows;
  int stride;
};
void fill_panel(const Conv2dShape& shape, const Conv2dWeights& weights, const Palette& palette, const PanelSpec& spec,
                float* panel);

// lanes[j] = float first + j of an unaligned array for j < count, 0 for the others up to `size`.
void load_floats(const void* source, int64_t first, int count, int size, float* lanes);

}  // namespace voxpress
