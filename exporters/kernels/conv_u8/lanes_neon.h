// The vectors and instructions that the integer kernels are written in, for neon: see conv_u8/lanes.h.
//
// Two products of a weight of -127..127 and an input of -128..127 fit in 16 bits, a third might not.
#pragma once

#define VOXPRESS_VECTORS_U8 4
#define VOXPRESS_ROWS_U8 3
#include "conv_u8/lanes_arm.h"

namespace voxpress {
namespace {

// Of the 16 bytes of four output channels, the first two weights of each come first.
constexpr int64_t place_in_step(int64_t k, int64_t channel) {
  return channel / kInts * kBytes + k / 2 * (kBytes / 2) + channel % kInts * 2 + k % 2;
}

// Step by step for all vectors, as processors that run in order want it.
template <int kStep>
VOXPRESS_INLINE void dot(int8x16_t inputs, const int8x16_t (&weights)[kVectors], S32s (&sum)[kVectors]) {
  constexpr uint8_t a = kStep * kDepth, b = a + 1, c = a + 2, d = a + 3;
  const int8x16_t four = vqtbl1q_s8(inputs, uint8x16_t{a, b, a, b, a, b, a, b, c, d, c, d, c, d, c, d});
  int16x8_t products[kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) products[v] = vmull_s8(vget_low_s8(four), vget_low_s8(weights[v]));
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) products[v] = vmlal_high_s8(products[v], four, weights[v]);
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) sum[v] = (S32s)vpadalq_s16((int32x4_t)sum[v], products[v]);
}

}  // namespace
}  // namespace voxpress
