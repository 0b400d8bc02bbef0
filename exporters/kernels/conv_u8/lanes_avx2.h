// The vectors and instructions that the integer kernels are written in, for avx2: see conv_u8/lanes.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define VOXPRESS_BYTES 32
#define VOXPRESS_VECTORS_U8 2
#define VOXPRESS_ROWS_U8 6
#include "conv_u8/lanes.h"

namespace voxpress {
namespace {

constexpr uint8_t kTransformedFlip = 0;  // inputs are signed
constexpr uint8_t kGatheredFlip = 0x80;

VOXPRESS_INLINE U8s interleave_low(U8s a, U8s b) { return (U8s)_mm256_unpacklo_epi8((__m256i)a, (__m256i)b); }
VOXPRESS_INLINE U8s interleave_high(U8s a, U8s b) { return (U8s)_mm256_unpackhi_epi8((__m256i)a, (__m256i)b); }

VOXPRESS_INLINE S32s interleave_pairs_low(U8s a, U8s b) { return (S32s)_mm256_unpacklo_epi16((__m256i)a, (__m256i)b); }
VOXPRESS_INLINE S32s interleave_pairs_high(U8s a, U8s b) { return (S32s)_mm256_unpackhi_epi16((__m256i)a, (__m256i)b); }

// Of bytes a, b side by side a * first + b * second, to 16 bits.
#define VOXPRESS_PAIR_PRODUCTS
VOXPRESS_INLINE S16s pair_products(U8s pairs, int first, int second) {
  const int both = (first & 0xff) | (second & 0xff) << 8;
  return (S16s)_mm256_maddubs_epi16((__m256i)pairs, _mm256_set1_epi16(static_cast<short>(both)));
}

// Half a vector from here, half from there.
VOXPRESS_INLINE U8s load_halves(const uint8_t* low, const uint8_t* high) {
  return (U8s)_mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(high), reinterpret_cast<const __m128i*>(low));
}

VOXPRESS_INLINE S16s round_product(S16s a, S16s b) { return (S16s)_mm256_mulhrs_epi16((__m256i)a, (__m256i)b); }
VOXPRESS_INLINE U8s narrow(S16s low, S16s high) { return (U8s)_mm256_packs_epi16((__m256i)low, (__m256i)high); }
VOXPRESS_INLINE U16s magnitude(S16s a) { return (U16s)_mm256_abs_epi16((__m256i)a); }
VOXPRESS_INLINE U16s larger(U16s a, U16s b) { return (U16s)_mm256_max_epu16((__m256i)a, (__m256i)b); }

VOXPRESS_INLINE S32s halves(S32s low, S32s high) { return (S32s)_mm256_blend_epi32((__m256i)low, (__m256i)high, 0xf0); }

VOXPRESS_INLINE F32s fused(F32s a, F32s b, F32s c) { return (F32s)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
VOXPRESS_INLINE F32s multiply_add(F32s a, float factor, F32s b) {
  return (F32s)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(factor), (__m256)b);
}

// The instruction multiplies unsigned by signed bytes and cuts sums of two products off at 16 bits. Magnitudes of
// inputs, at most 128, times weights with their signs stay below: 2 * 128 * 127.
struct DotInputs {
  __m256i values, magnitudes;
};
VOXPRESS_INLINE DotInputs dot_inputs(S32s inputs) { return {(__m256i)inputs, _mm256_abs_epi8((__m256i)inputs)}; }

VOXPRESS_INLINE S32s dot_lanes(S32s sum, const DotInputs& inputs, S32s weights) {
  const __m256i signs = _mm256_sign_epi8((__m256i)weights, inputs.values);
  const __m256i pairs = _mm256_maddubs_epi16(inputs.magnitudes, signs);
  return sum + (S32s)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

// In the loop that counts, inputs and weights have 16 bits: a quarter faster than keeping bytes from being cut off.
// Weights stay bytes in memory.
constexpr int kDotDepth = 2;
constexpr int kInputBytes = 2;
constexpr int kInputSteps = 1;

VOXPRESS_INLINE void store_transformed(uint8_t* target, S16s low, S16s high) {
  store(target, _mm256_permute2x128_si256((__m256i)low, (__m256i)high, 0x20));
  store(target + kBytes, _mm256_permute2x128_si256((__m256i)low, (__m256i)high, 0x31));
}
VOXPRESS_INLINE void store_gathered(uint8_t* target, U8s bytes) {
  const auto inputs = (__m256i)(bytes ^ kGatheredFlip);
  store(target, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(inputs)));
  store(target + kBytes, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(inputs, 1)));
}

// [kPanel][4] to [2][kPanel][2].
constexpr bool kArranges = true;
VOXPRESS_INLINE void arrange_step(int8_t* step) {
  static_assert(kVectors == 2, "two vectors in, two out");
  const __m256i pairs =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const __m256i a = _mm256_shuffle_epi8(load<__m256i>(step), pairs);
  const __m256i b = _mm256_shuffle_epi8(load<__m256i>(step + kBytes), pairs);
  store(step, _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xd8));
  store(step + kBytes, _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xd8));
}

VOXPRESS_INLINE S16s load_weights(const int8_t* weights) {
  return (S16s)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
}
VOXPRESS_INLINE S32s load_inputs(const uint8_t* inputs) { return broadcast_four(inputs); }

template <int kStep>
VOXPRESS_INLINE void dot(S32s inputs, const S16s (&weights)[kVectors], S32s (&sum)[kVectors]) {
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) sum[v] += (S32s)_mm256_madd_epi16((__m256i)inputs, (__m256i)weights[v]);
}

// The largest of the lanes of each of eight vectors: of the first half of the lanes in result[0..8), of the second in
// result[8..16).
VOXPRESS_INLINE void largest_of_eight(const U16s* v, int32_t* result) {
  const auto merge16 = [](U16s a, U16s b) {
    return _mm256_max_epu16(_mm256_unpacklo_epi16((__m256i)a, (__m256i)b),
                            _mm256_unpackhi_epi16((__m256i)a, (__m256i)b));
  };
  const auto merge32 = [](__m256i a, __m256i b) {
    return _mm256_max_epu16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  };
  const __m256i low = merge32(merge16(v[0], v[1]), merge16(v[2], v[3]));
  const __m256i high = merge32(merge16(v[4], v[5]), merge16(v[6], v[7]));
  const __m256i all = _mm256_max_epu16(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
  auto* target = reinterpret_cast<__m256i*>(result);
  _mm256_storeu_si256(target, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(all)));
  _mm256_storeu_si256(target + 1, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(all, 1)));
}

VOXPRESS_INLINE S32s add_bytes(S32s sum, U8s bytes) {
  return sum + (S32s)_mm256_sad_epu8((__m256i)bytes, _mm256_setzero_si256());
}

VOXPRESS_INLINE void sums_of_eight(const S32s* v, int32_t* result) {
  for (int four = 0; four < 8; four += 4) {
    const __m256i low = _mm256_hadd_epi32((__m256i)v[four], (__m256i)v[four + 1]);
    const __m256i high = _mm256_hadd_epi32((__m256i)v[four + 2], (__m256i)v[four + 3]);
    const __m256i halves = _mm256_hadd_epi32(low, high);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(result + four), _mm256_castsi256_si128(halves));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(result + 8 + four), _mm256_extracti128_si256(halves, 1));
  }
}

// Rounded to 0..255 and at least `low`; of each 16 bytes the first four are from values[0], the next from values[1].
VOXPRESS_INLINE U8s round_together(const F32s (&values)[4], U8s low) {
  const __m256 most = _mm256_set1_ps(255.0f);
  __m256i whole[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) whole[j] = _mm256_cvtps_epi32(_mm256_min_ps(most, (__m256)values[j]));
  const __m256i words01 = _mm256_packs_epi32(whole[0], whole[1]);
  const __m256i words23 = _mm256_packs_epi32(whole[2], whole[3]);
  return (U8s)_mm256_max_epu8(_mm256_packus_epi16(words01, words23), (__m256i)low);
}

VOXPRESS_INLINE __m256i round_in_order(const F32s (&values)[4], U8s low) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32((__m256i)round_together(values, low), order);
}

VOXPRESS_INLINE void store_panel_rows(const F32s (&values)[4], U8s low, uint8_t* out, int64_t stride) {
  const __m256i rows = round_in_order(values, low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(rows));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + stride), _mm256_extracti128_si256(rows, 1));
}

// out[j * stride + c] = values[j][c], rounded to 0..255 and at least `low`, for j < kCount.
template <int kCount>
VOXPRESS_INLINE void store_rounded(const F32s (&values)[kCount], U8s low, uint8_t* out, int64_t stride) {
  static_assert(kCount == 2 || kCount == 4, "two or four pixels");
  const F32s four[4] = {values[0], values[1], values[2 % kCount], values[3 % kCount]};
  alignas(32) uint64_t each[4];
  store(each, round_in_order(four, low));
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) std::memcpy(out + j * stride, each + j, sizeof(each[j]));
}

VOXPRESS_INLINE U16s widen_to_shorts(const uint8_t* source) {
  return (U16s)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

// Of kBytes bits, from the start of a byte on: `high` where they are set, `low` where not.
VOXPRESS_INLINE U8s select_by_bits(const uint8_t* bits, int8_t low, int8_t high) {
  const __m256i order = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i each = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(load<int32_t>(bits)), order);
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, each), each);
  return (U8s)_mm256_blendv_epi8(_mm256_set1_epi8(low), _mm256_set1_epi8(high), set);
}

// table[codes], of codes below 16.
#define VOXPRESS_BMI2
VOXPRESS_INLINE U8s look_up_16(const int8_t* table, U8s codes) {
  const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return (U8s)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), (__m256i)codes);
}

VOXPRESS_INLINE S32s widen_weights(const int8_t* source) {
  return (S32s)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)));
}

VOXPRESS_INLINE S32s widen_bytes(const uint8_t* source) {
  return (S32s)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)));
}

}  // namespace
}  // namespace voxpress
