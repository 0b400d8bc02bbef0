// What the environment says about how layers are run, for tests and measurements.
//
//   VOXPRESS_KERNELS=portable|neon|avx2|avx512   kernels of this instruction set; an error if the machine lacks it
//   VOXPRESS_LOW_MEMORY=1                        run from codes, expanding weights at each call; keep nothing packed
#pragma once

#include "base/status.h"

namespace voxpress {

// Selects the instruction set named in the environment, or the widest, for the whole process. kBadIsa if it cannot be.
Status apply_settings();

// A text for people about what apply_settings found wrong.
constexpr const char* kBadSettingsText = "VOXPRESS_KERNELS names an instruction set that this machine does not have";

bool low_memory_wanted();

}  // namespace voxpress
