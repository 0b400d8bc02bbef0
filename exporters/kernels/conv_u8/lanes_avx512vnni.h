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

constexpr int kDepth = 4;
constexpr int kInputBytes = 1;
constexpr int kInputSteps = 1;
constexpr int32_t kRaised = 128;  // the instruction wants inputs of 0 to 255
constexpr int32_t kLowered = 0;
constexpr bool kHalves = true;

VOXPRESS_INLINE U8s interleave_low(U8s a, U8s b) { return (U8s)_mm512_unpacklo_epi8((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE U8s interleave_high(U8s a, U8s b) { return (U8s)_mm512_unpackhi_epi8((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE S16s widen_low(U8s a) { return (S16s)interleave_low(a, U8s{}); }
VOXPRESS_INLINE S16s widen_high(U8s a) { return (S16s)interleave_high(a, U8s{}); }

VOXPRESS_INLINE S16s round_product(S16s a, S16s b) { return (S16s)_mm512_mulhrs_epi16((__m512i)a, (__m512i)b); }
VOXPRESS_INLINE void store_inputs(uint8_t* target, S16s low, S16s high) {
  store(target, (U8s)_mm512_packs_epi16((__m512i)low, (__m512i)high) ^ kRaised);
}
VOXPRESS_INLINE void store_bytes(uint8_t* target, U8s bytes) { store(target, bytes); }
VOXPRESS_INLINE int32_t input_at(const uint8_t* row, int64_t k) { return row[k]; }
VOXPRESS_INLINE U16s magnitude(S16s a) { return (U16s)_mm512_abs_epi16((__m512i)a); }
VOXPRESS_INLINE U16s larger(U16s a, U16s b) { return (U16s)_mm512_max_epu16((__m512i)a, (__m512i)b); }

VOXPRESS_INLINE S32s halves(S32s low, S32s high) {
  return (S32s)_mm512_mask_blend_epi32(0xff00, (__m512i)low, (__m512i)high);
}

VOXPRESS_INLINE F32s multiply_add(F32s a, float factor, F32s b) {
  return (F32s)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(factor), (__m512)b);
}

constexpr int64_t place_in_step(int64_t k, int64_t channel) { return channel * kDepth + k; }

VOXPRESS_INLINE S32s load_weights(const int8_t* weights) { return load<S32s>(weights); }

VOXPRESS_INLINE S32s load_inputs(const uint8_t* inputs) {
  int32_t four;
  std::memcpy(&four, inputs, sizeof(four));
  return four - S32s{};
}

template <int kStep>
VOXPRESS_INLINE void dot(S32s inputs, const S32s (&weights)[kVectors], S32s (&sum)[kVectors]) {
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    sum[v] = (S32s)_mm512_dpbusd_epi32((__m512i)sum[v], (__m512i)inputs, (__m512i)weights[v]);
  }
}

// The largest of the lanes of each of eight vectors: of the first half of the lanes in result[0..8), of the second in
// result[8..16).
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

// out[j * stride + c] = values[j][c], rounded to 0..255 and at least `low`, for j < kCount.
template <int kCount>
VOXPRESS_INLINE void store_rounded(const F32s (&values)[kCount], U8s low, uint8_t* out, int64_t stride) {
  static_assert(kCount == 2 || kCount == 4, "two or four pixels");
  const __m512 most = _mm512_set1_ps(255.0f);
  __m512i whole[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) {
    whole[j] =
        j < kCount ? _mm512_cvtps_epi32(_mm512_min_ps(most, (__m512)values[j % kCount])) : _mm512_setzero_si512();
  }
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_packs_epi32(whole[0], whole[1]), _mm512_packs_epi32(whole[2], whole[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i pixels = _mm512_permutexvar_epi32(order, _mm512_max_epu8(bytes, (__m512i)low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_castsi512_si128(pixels));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + stride), _mm512_extracti32x4_epi32(pixels, 1));
  if constexpr (kCount == 4) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * stride), _mm512_extracti32x4_epi32(pixels, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * stride), _mm512_extracti32x4_epi32(pixels, 3));
  }
}

VOXPRESS_INLINE S32s widen_bytes(const uint8_t* source) {
  return (S32s)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

}  // namespace
}  // namespace voxpress
