// What the instruction sets of aarch64 have in common of conv_u8/lanes.h; included by theirs.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#define VOXPRESS_BYTES 16
#include "conv_u8/lanes.h"

namespace voxpress {
namespace {

constexpr int kDepth = 4;
constexpr int kInputBytes = 1;
constexpr int kInputSteps = 4;
constexpr int32_t kRaised = 0;
constexpr int32_t kLowered = 128;  // products are of signed bytes
constexpr bool kHalves = false;

VOXPRESS_INLINE S16s widen_low(U8s a) { return (S16s)vmovl_u8(vget_low_u8((uint8x16_t)a)); }
VOXPRESS_INLINE S16s widen_high(U8s a) { return (S16s)vmovl_high_u8((uint8x16_t)a); }

VOXPRESS_INLINE void store_inputs(uint8_t* target, S16s low, S16s high) {
  store(target, vqmovn_high_s16(vqmovn_s16((int16x8_t)low), (int16x8_t)high));
}
VOXPRESS_INLINE void store_bytes(uint8_t* target, U8s bytes) { store(target, bytes ^ kLowered); }
VOXPRESS_INLINE int32_t input_at(const uint8_t* row, int64_t k) { return row[k] ^ kLowered; }

VOXPRESS_INLINE S16s round_product(S16s a, S16s b) { return (S16s)vqrdmulhq_s16((int16x8_t)a, (int16x8_t)b); }
VOXPRESS_INLINE U16s magnitude(S16s a) { return (U16s)vabsq_s16((int16x8_t)a); }
VOXPRESS_INLINE U16s larger(U16s a, U16s b) { return (U16s)vmaxq_u16((uint16x8_t)a, (uint16x8_t)b); }

VOXPRESS_INLINE F32s multiply_add(F32s a, float factor, F32s b) {
  return (F32s)vfmaq_n_f32((float32x4_t)b, (float32x4_t)a, factor);
}

VOXPRESS_INLINE int8x16_t load_weights(const int8_t* weights) { return load<int8x16_t>(weights); }
VOXPRESS_INLINE int8x16_t load_inputs(const uint8_t* inputs) { return load<int8x16_t>(inputs); }

// result[j] = the largest of the lanes of v[j], for eight vectors.
VOXPRESS_INLINE void largest_of_eight(const U16s* v, int32_t* result) {
  const auto merge = [](uint16x8_t a, uint16x8_t b) { return vpmaxq_u16(a, b); };
  uint16x8_t pairs[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) pairs[j] = merge((uint16x8_t)v[2 * j], (uint16x8_t)v[2 * j + 1]);
  const uint16x8_t all = merge(merge(pairs[0], pairs[1]), merge(pairs[2], pairs[3]));
  store(result, vmovl_u16(vget_low_u16(all)));
  store(result + 4, vmovl_high_u16(all));
}

// out[j * stride + c] = values[j][c], rounded to 0..255 and at least `low`, for j < kCount.
template <int kCount>
VOXPRESS_INLINE void store_rounded(const F32s (&values)[kCount], U8s low, uint8_t* out, int64_t stride) {
  static_assert(kCount == 2 || kCount == 4, "two or four pixels");
  const auto whole = [&](int j) { return vqmovn_s32(vcvtnq_s32_f32((float32x4_t)values[j])); };
  typedef uint32_t Pixels __attribute__((vector_size(kBytes)));
  uint8x8_t bytes[2] = {vqmovun_s16(vcombine_s16(whole(0), whole(1))), {}};
  if constexpr (kCount == 4) bytes[1] = vqmovun_s16(vcombine_s16(whole(2), whole(3)));
  const Pixels pixels = (Pixels)vmaxq_u8(vcombine_u8(bytes[0], bytes[1]), (uint8x16_t)low);
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) store(out + j * stride, pixels[j]);
}

VOXPRESS_INLINE uint8x8_t load_four(const void* source) { return vcreate_u8(load<uint32_t>(source)); }

VOXPRESS_INLINE S32s widen_bytes(const uint8_t* source) {
  return (S32s)vmovl_u16(vget_low_u16(vmovl_u8(load_four(source))));
}

VOXPRESS_INLINE S32s widen_weights(const int8_t* source) {
  return (S32s)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(load_four(source)))));
}

}  // namespace
}  // namespace voxpress
