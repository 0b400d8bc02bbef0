// The vectors and instructions that the integer kernels are written in, for neondot: see conv_u8/lanes.h.
#pragma once

#define VOXPRESS_VECTORS_U8 4
#define VOXPRESS_ROWS_U8 5
#include "conv_u8/lanes_arm.h"

namespace voxpress {
namespace {

constexpr int64_t place_in_step(int64_t k, int64_t channel) { return channel * kDepth + k; }

template <int kStep>
VOXPRESS_INLINE void dot(int8x16_t inputs, const int8x16_t (&weights)[kVectors], S32s (&sum)[kVectors]) {
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    sum[v] = (S32s)vdotq_laneq_s32((int32x4_t)sum[v], weights[v], inputs, kStep);
  }
}

}  // namespace
}  // namespace voxpress
