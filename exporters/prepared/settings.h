// What the environment says about how layers are run, for tests and measurements.
//
//   VOXPRESS_KERNELS=portable|neon|neondot|avx2|avx512|avx512vnni
//                            kernels of this instruction set; an error if the machine lacks it
//   VOXPRESS_LOW_MEMORY=1    run from codes, expanding weights at each call; keep nothing packed
//   VOXPRESS_THREADS=n       threads of a layer, whatever the runtime says
#pragma once

#include <cstdint>

#include "base/status.h"

namespace voxpress {

// Selects the instruction set named in the environment, or the widest, for the whole process. kBadIsa if it cannot be.
Status apply_settings();

// A text for people about what apply_settings found wrong.
constexpr const char* kBadSettingsText = "VOXPRESS_KERNELS names an instruction set that this machine does not have";

bool low_memory_wanted();

// How many threads a layer may use: what the environment says, if that is a number from 1 on, or what the runtime does,
// which may be less than 1 for "I do not know".
int32_t threads_wanted(int32_t runtime_threads);

}  // namespace voxpress
