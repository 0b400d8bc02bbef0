// The vectors and instructions that the integer kernels are written in, for avx2: see conv_u8/lanes.h.
//
// Inputs lie as 16 bits. vpmaddubsw, the product of bytes, saturates; kept from that by vpsignb and vpabsb it is a
// quarter slower than vpmaddwd on inputs and weights of 16 bits. Weights stay bytes in memory.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define VOXPRESS_BYTES 32
#define VOXPRESS_VECTORS_U8 2
#define VOXPRESS_ROWS_U8 6
#include "conv_u8/lanes.h"

namespace voxpress {
namespace {

constexpr int kDepth = 2;
constexpr int kInputBytes = 2;
constexpr int kInputSteps = 1;
constexpr int32_t kRaised = 0;
constexpr int32_t kLowered = 0;
constexpr bool kHalves = false;

VOXPRESS_INLINE S16s widen_low(U8s a) { return (S16s)_mm256_cvtepu8_epi16(_mm256_castsi256_si128((__m256i)a)); }
VOXPRESS_INLINE S16s widen_high(U8s a) { return (S16s)_mm256_cvtepu8_epi16(_mm256_extracti128_si256((__m256i)a, 1)); }

VOXPRESS_INLINE void store_inputs(uint8_t* target, S16s low, S16s high) {
  store(target, low);
  store(target + kBytes, high);
}
VOXPRESS_INLINE void store_bytes(uint8_t* target, U8s bytes) {
  store_inputs(target, widen_low(bytes), widen_high(bytes));
}
VOXPRESS_INLINE int32_t input_at(const uint8_t* row, int64_t k) { return load<int16_t>(row + k * kInputBytes); }

VOXPRESS_INLINE S16s round_product(S16s a, S16s b) { return (S16s)_mm256_mulhrs_epi16((__m256i)a, (__m256i)b); }
VOXPRESS_INLINE U16s magnitude(S16s a) { return (U16s)_mm256_abs_epi16((__m256i)a); }
VOXPRESS_INLINE U16s larger(U16s a, U16s b) { return (U16s)_mm256_max_epu16((__m256i)a, (__m256i)b); }

VOXPRESS_INLINE F32s multiply_add(F32s a, float factor, F32s b) {
  return (F32s)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(factor), (__m256)b);
}

constexpr int64_t place_in_step(int64_t k, int64_t channel) { return channel * kDepth + k; }

VOXPRESS_INLINE S16s load_weights(const int8_t* weights) {
  return (S16s)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
}

VOXPRESS_INLINE S32s load_inputs(const uint8_t* inputs) { return load<int32_t>(inputs) - S32s{}; }

template <int kStep>
VOXPRESS_INLINE void dot(S32s inputs, const S16s (&weights)[kVectors], S32s (&sum)[kVectors]) {
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    sum[v] = sum[v] + (S32s)_mm256_madd_epi16((__m256i)inputs, (__m256i)weights[v]);
  }
}

// result[j] = the largest of the lanes of v[j], for eight vectors.
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
  const __m128i both = _mm_max_epu16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  store(result, (S32s)_mm256_cvtepu16_epi32(both));
}

// out[j * stride + c] = values[j][c], rounded to 0..255 and at least `low`, for j < kCount.
template <int kCount>
VOXPRESS_INLINE void store_rounded(const F32s (&values)[kCount], U8s low, uint8_t* out, int64_t stride) {
  static_assert(kCount == 2 || kCount == 4, "two or four pixels");
  const __m256 most = _mm256_set1_ps(255.0f);
  __m256i whole[4];
  VOXPRESS_UNROLL
  for (int j = 0; j < 4; ++j) {
    whole[j] =
        j < kCount ? _mm256_cvtps_epi32(_mm256_min_ps(most, (__m256)values[j % kCount])) : _mm256_setzero_si256();
  }
  const __m256i bytes =
      _mm256_packus_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i pixels = _mm256_permutevar8x32_epi32(_mm256_max_epu8(bytes, (__m256i)low), order);
  typedef int64_t Pixels __attribute__((vector_size(kBytes)));
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) store(out + j * stride, ((Pixels)pixels)[j]);
}

VOXPRESS_INLINE S32s widen_bytes(const uint8_t* source) {
  return (S32s)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)));
}

VOXPRESS_INLINE S32s widen_weights(const int8_t* source) {
  return (S32s)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)));
}

}  // namespace
}  // namespace voxpress
