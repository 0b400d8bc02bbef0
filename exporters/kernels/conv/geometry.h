// Which shapes of a layer make sense at all, for both modes.
#pragma once

#include "conv/conv2d.h"

namespace voxpress {

// Sizes in range, groups and window that fit, no product of sizes that overflows. Says nothing about the width.
bool geometry_ok(const Conv2dShape& shape);

// 1..8, or 32 for float weights.
bool bits_ok(int32_t bits);

// 3x3 with stride 1 and without groups, whatever the number of channels.
bool is_winograd_geometry(const Conv2dShape& shape);

}  // namespace voxpress
