// The vectors and instructions that the integer kernels are written in, for neon and, with VOXPRESS_NEON_DOT, neondot:
// see conv_u8/lanes.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#define VOXPRESS_BYTES 16
#define VOXPRESS_VECTORS_U8 4
#if !defined(VOXPRESS_NEON_DOT)
#define VOXPRESS_ROWS_U8 3
#else
#define VOXPRESS_ROWS_U8 5
#endif
#include "conv_u8/lanes.h"

namespace voxpress {
namespace {

constexpr uint8_t kTransformedFlip = 0;  // inputs are signed
constexpr uint8_t kGatheredFlip = 0x80;

VOXPRESS_INLINE U8s interleave_low(U8s a, U8s b) { return (U8s)vzip1q_u8((uint8x16_t)a, (uint8x16_t)b); }
VOXPRESS_INLINE U8s interleave_high(U8s a, U8s b) { return (U8s)vzip2q_u8((uint8x16_t)a, (uint8x16_t)b); }
VOXPRESS_INLINE S32s interleave_pairs_low(U8s a, U8s b) { return (S32s)vzip1q_u16((uint16x8_t)a, (uint16x8_t)b); }
VOXPRESS_INLINE S32s interleave_pairs_high(U8s a, U8s b) { return (S32s)vzip2q_u16((uint16x8_t)a, (uint16x8_t)b); }
VOXPRESS_INLINE S16s widen_low(U8s a) { return (S16s)vmovl_u8(vget_low_u8((uint8x16_t)a)); }
VOXPRESS_INLINE S16s widen_high(U8s a) { return (S16s)vmovl_high_u8((uint8x16_t)a); }
// Half a vector from here, half from there.
VOXPRESS_INLINE U8s load_halves(const uint8_t* low, const uint8_t* high) {
  return (U8s)vcombine_u8(vld1_u8(low), vld1_u8(high));
}
VOXPRESS_INLINE S32s halves(S32s low, S32s high) {
  return (S32s)vcombine_s32(vget_low_s32((int32x4_t)low), vget_high_s32((int32x4_t)high));
}

VOXPRESS_INLINE S16s round_product(S16s a, S16s b) { return (S16s)vqrdmulhq_s16((int16x8_t)a, (int16x8_t)b); }
VOXPRESS_INLINE U8s narrow(S16s low, S16s high) {
  return (U8s)vqmovn_high_s16(vqmovn_s16((int16x8_t)low), (int16x8_t)high);
}
VOXPRESS_INLINE U16s magnitude(S16s a) { return (U16s)vabsq_s16((int16x8_t)a); }
VOXPRESS_INLINE U16s larger(U16s a, U16s b) { return (U16s)vmaxq_u16((uint16x8_t)a, (uint16x8_t)b); }

VOXPRESS_INLINE F32s fused(F32s a, F32s b, F32s c) {
  return (F32s)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
VOXPRESS_INLINE F32s multiply_add(F32s a, float factor, F32s b) {
  return (F32s)vfmaq_n_f32((float32x4_t)b, (float32x4_t)a, factor);
}

using DotInputs = S32s;
VOXPRESS_INLINE DotInputs dot_inputs(S32s inputs) { return inputs; }

VOXPRESS_INLINE S32s dot_lanes(S32s sum, DotInputs inputs, S32s weights) {
  const auto x = (int8x16_t)inputs;
  const auto w = (int8x16_t)weights;
#if defined(VOXPRESS_NEON_DOT)
  return (S32s)vdotq_s32((int32x4_t)sum, w, x);
#else
  // Of inputs of at most 128 and weights of at most 127 two products fit into 16 bits.
  const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
  const int16x8_t high = vmull_high_s8(w, x);
  return (S32s)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, high));
#endif
}

constexpr int kDotDepth = kDepth;
constexpr int kInputBytes = 1;
constexpr int kInputSteps = 4;

// Inputs are bytes in order.
VOXPRESS_INLINE void store_transformed(uint8_t* target, S16s low, S16s high) { store(target, narrow(low, high)); }
VOXPRESS_INLINE void store_gathered(uint8_t* target, U8s bytes) { store(target, bytes ^ kGatheredFlip); }

VOXPRESS_INLINE int8x16_t load_weights(const int8_t* weights) { return load<int8x16_t>(weights); }
VOXPRESS_INLINE int8x16_t load_inputs(const uint8_t* inputs) { return load<int8x16_t>(inputs); }

#if defined(VOXPRESS_NEON_DOT)
constexpr bool kArranges = false;
VOXPRESS_INLINE void arrange_step(int8_t*) {}

template <int kStep>
VOXPRESS_INLINE void dot(int8x16_t inputs, const int8x16_t (&weights)[kVectors], S32s (&sum)[kVectors]) {
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    sum[v] = (S32s)vdotq_laneq_s32((int32x4_t)sum[v], weights[v], inputs, kStep);
  }
}
#else
// Of the 16 bytes of four output channels, the first two weights of each come first.
constexpr bool kArranges = true;
VOXPRESS_INLINE void arrange_step(int8_t* step) {
  const uint8x16_t pairs = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
  for (int v = 0; v < kVectors; ++v) store(step + v * kBytes, vqtbl1q_s8(load<int8x16_t>(step + v * kBytes), pairs));
}

// Two products are summed with 16 bits, see dot_lanes. Step by step for all vectors, as processors that run in order
// want it.
template <int kStep>
VOXPRESS_INLINE void dot(int8x16_t inputs, const int8x16_t (&weights)[kVectors], S32s (&sum)[kVectors]) {
  constexpr uint8_t a = kStep * kDotDepth, b = a + 1, c = a + 2, d = a + 3;
  const int8x16_t four = vqtbl1q_s8(inputs, uint8x16_t{a, b, a, b, a, b, a, b, c, d, c, d, c, d, c, d});
  int16x8_t products[kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) products[v] = vmull_s8(vget_low_s8(four), vget_low_s8(weights[v]));
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) products[v] = vmlal_high_s8(products[v], four, weights[v]);
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) sum[v] = (S32s)vpadalq_s16((int32x4_t)sum[v], products[v]);
}
#endif

// The largest of the lanes of each of eight vectors in result[0..8); where vectors have two halves, those of the second
// lie behind.
VOXPRESS_INLINE void largest_of_eight(const U16s* v, int32_t* result) {
  uint16x8_t pairs[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) pairs[j] = vpmaxq_u16((uint16x8_t)v[2 * j], (uint16x8_t)v[2 * j + 1]);
  const uint16x8_t all = vpmaxq_u16(vpmaxq_u16(pairs[0], pairs[1]), vpmaxq_u16(pairs[2], pairs[3]));
  store(result, vmovl_u16(vget_low_u16(all)));
  store(result + 4, vmovl_high_u16(all));
  store(result + 8, uint32x4_t{});
  store(result + 12, uint32x4_t{});
}

VOXPRESS_INLINE S32s add_bytes(S32s sum, U8s bytes) {
  return (S32s)vpadalq_u16((uint32x4_t)sum, vpaddlq_u8((uint8x16_t)bytes));
}

VOXPRESS_INLINE void sums_of_eight(const S32s* v, int32_t* result) {
  for (int four = 0; four < 8; four += 4) {
    const int32x4_t low = vpaddq_s32((int32x4_t)v[four], (int32x4_t)v[four + 1]);
    const int32x4_t high = vpaddq_s32((int32x4_t)v[four + 2], (int32x4_t)v[four + 3]);
    store(result + four, vpaddq_s32(low, high));
    store(result + 8 + four, int32x4_t{});
  }
}

// Rounded to 0..255 and at least `low`; of each 16 bytes the first four are from values[0], the next from values[1].
VOXPRESS_INLINE U8s round_together(const F32s (&values)[4], U8s low) {
  const float32x4_t most = vdupq_n_f32(255.0f);
  int16x4_t words[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) words[j] = vqmovn_s32(vcvtnq_s32_f32(vminq_f32((float32x4_t)values[j], most)));
  const uint8x8_t first = vqmovun_s16(vcombine_s16(words[0], words[1]));
  return (U8s)vmaxq_u8(vqmovun_high_s16(first, vcombine_s16(words[2], words[3])), (uint8x16_t)low);
}

VOXPRESS_INLINE void store_panel_rows(const F32s (&values)[4], U8s low, uint8_t* out, int64_t) {
  store(out, round_together(values, low));
}

// out[j * stride + c] = values[j][c], rounded to 0..255 and at least `low`, for j < kCount.
template <int kCount>
VOXPRESS_INLINE void store_rounded(const F32s (&values)[kCount], U8s low, uint8_t* out, int64_t stride) {
  static_assert(kCount == 2 || kCount == 4, "two or four pixels");
  const F32s four[4] = {values[0], values[1], values[2 % kCount], values[3 % kCount]};
  uint32_t each[4];
  store(each, round_together(four, low));
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) std::memcpy(out + j * stride, each + j, sizeof(each[j]));
}

VOXPRESS_INLINE S32s widen_weights(const int8_t* source) {
  int32_t four;
  std::memcpy(&four, source, sizeof(four));
  return (S32s)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)))));
}

VOXPRESS_INLINE S32s widen_bytes(const uint8_t* source) {
  uint32_t four;
  std::memcpy(&four, source, sizeof(four));
  return (S32s)vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
}

}  // namespace
}  // namespace voxpress
