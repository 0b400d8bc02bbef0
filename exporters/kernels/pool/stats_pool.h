// Temporal statistics pooling: [N, frames, mel, C] -> [N, 1, 1, 2 * mel * C].
//
//   mean[j] = sum_t x[t,j] / T,   std[j] = sqrt(sum_t (x[t,j] - mean[j])^2 / (T - 1) + 1e-7),   j = mel * C + c
//
// The means come first, then the standard deviations. T = 1 gives std = sqrt(1e-7).
#pragma once

#include <cstdint>

#include "base/status.h"

namespace voxpress {

constexpr int32_t kStatsPoolVersion = 1;

struct StatsPoolShape {
  int64_t batch = 0, frames = 0, mel = 0, channels = 0;
};

Status stats_pool_check(const StatsPoolShape& shape);

// input: batch * frames * mel * channels floats; output: batch * 2 * mel * channels floats. Needs no scratch.
Status stats_pool_run(const StatsPoolShape& shape, const float* input, float* output);

const char* stats_pool_kernel_name();

}  // namespace voxpress
