// The vectors and instructions that the integer kernels are written in, for avx512vnni: see conv_u8/lanes.h.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 says so of its own "undefined" vectors
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstdint>

#define VOXPRESS_BYTES 64
#define VOXPRESS_VECTORS_U8 2
#define VOXPRESS_ROWS_U8 14
#include "conv_u8/lanes.h"

namespace voxpress {
namespace {

constexpr uint8_t kTransformedFlip = 0x80;  // the instruction wants unsigned inputs
constexpr uint8_t kGatheredFlip = 0;

VOXPRESS_INLINE U8s interleave_low(U8s a, U8s b) { return (U8s)_mm512_unpacklo_epi8((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE U8s interleave_high(U8s a, U8s b) { return (U8s)_mm512_unpackhi_epi8((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE S32s interleave_pairs_low(U8s a, U8s b) { return (S32s)_mm512_unpacklo_epi16((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE S32s interleave_pairs_high(U8s a, U8s b) { return (S32s)_mm512_unpackhi_epi16((__m512i)a, (__m512i)b); }

// Of bytes a, b side by side a * first + b * second, to 16 bits.
#define VOXPRESS_PAIR_PRODUCTS
VOXPRESS_INLINE S16s pair_products(U8s pairs, int first, int second) {
  const int both = (first & 0xff) | (second & 0xff) << 8;
  return (S16s)_mm512_maddubs_epi16((__m512i)pairs, _mm512_set1_epi16(static_cast<short>(both)));
}

// Half a vector from here, half from there.
VOXPRESS_INLINE U8s load_halves(const uint8_t* low, const uint8_t* high) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high));
  return (U8s)_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

VOXPRESS_INLINE S16s round_product(S16s a, S16s b) { return (S16s)_mm512_mulhrs_epi16((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE U8s narrow(S16s low, S16s high) { return (U8s)_mm512_packs_epi16((__m512i)low, (__m512i)high); }
VOXPRESS_INLINE U16s magnitude(S16s a) { return (U16s)_mm512_abs_epi16((__m512i)a); }
VOXPRESS_INLINE U16s larger(U16s a, U16s b) { return (U16s)_mm512_max_epu16((__m512i)a, (__m512i)b); }

VOXPRESS_INLINE S32s halves(S32s low, S32s high) {
  return (S32s)_mm512_mask_blend_epi32(0xff00, (__m512i)low, (__m512i)high);
}

VOXPRESS_INLINE F32s fused(F32s a, F32s b, F32s c) { return (F32s)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
VOXPRESS_INLINE F32s multiply_add(F32s a, float factor, F32s b) {
  return (F32s)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(factor), (__m512)b);
}

using DotInputs = S32s;
VOXPRESS_INLINE DotInputs dot_inputs(S32s inputs) { return inputs; }

VOXPRESS_INLINE S32s dot_lanes(S32s sum, DotInputs inputs, S32s weights) {
  return (S32s)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)inputs, (__m512i)weights);
}

constexpr int kDotDepth = kDepth;
constexpr int kInputBytes = 1;
constexpr int kInputSteps = 1;

// Inputs are bytes in order.
VOXPRESS_INLINE void store_transformed(uint8_t* target, S16s low, S16s high) {
  store(target, narrow(low, high) ^ kTransformedFlip);
}
VOXPRESS_INLINE void store_gathered(uint8_t* target, U8s bytes) { store(target, bytes); }
constexpr bool kArranges = false;
VOXPRESS_INLINE void arrange_step(int8_t*) {}

VOXPRESS_INLINE S32s load_weights(const int8_t* weights) { return load<S32s>(weights); }
VOXPRESS_INLINE S32s load_inputs(const uint8_t* inputs) { return broadcast_four(inputs); }

template <int kStep>
VOXPRESS_INLINE void dot(S32s inputs, const S32s (&weights)[kVectors], S32s (&sum)[kVectors]) {
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) sum[v] = dot_lanes(sum[v], inputs, weights[v]);
}

VOXPRESS_INLINE void largest_of_eight(const U16s* v, int32_t* result) {
  const auto merge16 = [](U16s a, U16s b) {
    return _mm512_max_epu16(_mm512_unpacklo_epi16((__m512i)a, (__m512i)b),
                            _mm512_unpackhi_epi16((__m512i)a, (__m512i)b));
  };
  const auto merge32 = [](__m512i a, __m512i b) {
    return _mm512_max_epu16(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  };
  const __m512i low = merge32(merge16(v[0], v[1]), merge16(v[2], v[3]));
  const __m512i high = merge32(merge16(v[4], v[5]), merge16(v[6], v[7]));
  const __m512i all = _mm512_max_epu16(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  // Lane by lane the eight results are in order; the two lanes of each half are still apart.
  const __m512i halves = _mm512_max_epu16(all, _mm512_shuffle_i32x4(all, all, 0xb1));
  const __m256i packed = _mm512_castsi512_si256(_mm512_shuffle_i32x4(halves, halves, 0x08));
  _mm512_storeu_si512(result, _mm512_cvtepu16_epi32(packed));
}

VOXPRESS_INLINE S32s add_bytes(S32s sum, U8s bytes) { return dot_lanes(sum, (S32s)bytes, S32s{} + 0x01010101); }

VOXPRESS_INLINE void sums_of_eight(const S32s* v, int32_t* result) {
  const auto merge = [](S32s a, S32s b) {
    return (S32s)_mm512_unpacklo_epi32((__m512i)a, (__m512i)b) + (S32s)_mm512_unpackhi_epi32((__m512i)a, (__m512i)b);
  };
  for (int four = 0; four < 8; four += 4) {
    const auto low = (__m512i)merge(v[four], v[four + 1]);
    const auto high = (__m512i)merge(v[four + 2], v[four + 3]);
    const S32s all = (S32s)_mm512_unpacklo_epi64(low, high) + (S32s)_mm512_unpackhi_epi64(low, high);
    const auto halves = (__m512i)(all + (S32s)_mm512_shuffle_i32x4((__m512i)all, (__m512i)all, 0xb1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(result + four), _mm512_castsi512_si128(halves));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(result + 8 + four), _mm512_extracti32x4_epi32(halves, 2));
  }
}

// Rounded to 0..255 and at least `low`; of each 16 bytes the first four are from values[0], the next from values[1].
VOXPRESS_INLINE U8s round_together(const F32s (&values)[4], U8s low) {
  const __m512 most = _mm512_set1_ps(255.0f);
  __m512i whole[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) whole[j] = _mm512_cvtps_epi32(_mm512_min_ps(most, (__m512)values[j]));
  const __m512i words01 = _mm512_packs_epi32(whole[0], whole[1]);
  const __m512i words23 = _mm512_packs_epi32(whole[2], whole[3]);
  return (U8s)_mm512_max_epu8(_mm512_packus_epi16(words01, words23), (__m512i)low);
}

VOXPRESS_INLINE __m512i round_in_order(const F32s (&values)[4], U8s low) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, (__m512i)round_together(values, low));
}

VOXPRESS_INLINE void store_panel_rows(const F32s (&values)[4], U8s low, uint8_t* out, int64_t stride) {
  const __m512i rows = round_in_order(values, low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(rows));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + stride), _mm512_extracti64x4_epi64(rows, 1));
}

// out[j * stride + c] = values[j][c], rounded to 0..255 and at least `low`, for j < kCount.
template <int kCount>
VOXPRESS_INLINE void store_rounded(const F32s (&values)[kCount], U8s low, uint8_t* out, int64_t stride) {
  static_assert(kCount == 2 || kCount == 4, "two or four pixels");
  const F32s four[4] = {values[0], values[1], values[2 % kCount], values[3 % kCount]};
  const __m512i pixels = round_in_order(four, low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(pixels));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + stride), _mm512_extracti32x4_epi32(pixels, 1));
  if constexpr (kCount == 4) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * stride), _mm512_extracti32x4_epi32(pixels, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * stride), _mm512_extracti32x4_epi32(pixels, 3));
  }
}

VOXPRESS_INLINE U16s widen_to_shorts(const uint8_t* source) {
  return (U16s)_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}

// Of kBytes bits, from the start of a byte on: `high` where they are set, `low` where not.
VOXPRESS_INLINE U8s select_by_bits(const uint8_t* bits, int8_t low, int8_t high) {
  return (U8s)_mm512_mask_blend_epi8(_cvtu64_mask64(load<uint64_t>(bits)), _mm512_set1_epi8(low),
                                     _mm512_set1_epi8(high));
}

// table[codes], of codes below 16.
#define VOXPRESS_BMI2
VOXPRESS_INLINE U8s look_up_16(const int8_t* table, U8s codes) {
  const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return (U8s)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), (__m512i)codes);
}

VOXPRESS_INLINE S32s widen_weights(const int8_t* source) {
  return (S32s)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

VOXPRESS_INLINE S32s widen_bytes(const uint8_t* source) {
  return (S32s)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

}  // namespace
}  // namespace voxpress
