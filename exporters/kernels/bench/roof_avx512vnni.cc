// Bytes: four products a lane.
#include <immintrin.h>

#include "bench/roof.h"

namespace voxpress {
namespace {

constexpr int kSums = 28;
constexpr int kProducts = 64;  // of an instruction

float roof_loop(int64_t rounds, float seed) {
  __m512i sums[kSums];
#pragma GCC unroll 28
  for (int j = 0; j < kSums; ++j) sums[j] = _mm512_set1_epi32(j);
  const __m512i factor = _mm512_set1_epi8(static_cast<char>(seed * 1e4f));
  __m512i term = _mm512_set1_epi8(3);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 28
    for (int j = 0; j < kSums; ++j) {
      sums[j] = _mm512_dpbusd_epi32(sums[j], factor, term);
      __asm__ volatile("" : "+v"(term));  // for all the compiler knows a new value
    }
  }
  __m512i total = sums[0];
#pragma GCC unroll 28
  for (int j = 1; j < kSums; ++j) total = _mm512_add_epi32(total, sums[j]);
  return static_cast<float>(_mm512_cvtsi512_si32(total));
}

}  // namespace

extern const Roof roof_avx512vnni;
const Roof roof_avx512vnni = {Isa::kAvx512Vnni, int64_t{kSums} * kProducts, roof_loop};

}  // namespace voxpress
