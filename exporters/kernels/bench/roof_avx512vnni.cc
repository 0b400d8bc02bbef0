// Bytes: four products a lane.
#include <immintrin.h>

#include "bench/roof.h"

namespace voxpress {
namespace {

constexpr int kSums = 28;
constexpr int kProducts = 64;  // of an instruction

// Each sum as a variable of its own, so that each stays in a register.
template <int kIndex>
struct Sums {
  __m512i sum = _mm512_set1_epi32(kIndex);
  Sums<kIndex - 1> rest;

  void add(__m512i factor, __m512i term) {
    sum = _mm512_dpbusd_epi32(sum, factor, term);
    __asm__ volatile("" : "+v"(sum));  // for all the compiler knows a new value
    rest.add(factor, term);
  }
  __m512i total() const { return _mm512_add_epi32(sum, rest.total()); }
};

template <>
struct Sums<0> {
  void add(__m512i, __m512i) {}
  __m512i total() const { return _mm512_setzero_si512(); }
};

float roof_loop(int64_t rounds, float seed) {
  Sums<kSums> sums;
  const __m512i factor = _mm512_set1_epi8(static_cast<char>(seed * 1e4f));
  const __m512i term = _mm512_set1_epi8(3);
  for (int64_t round = 0; round < rounds; ++round) sums.add(factor, term);
  return static_cast<float>(_mm512_cvtsi512_si32(sums.total()));
}

}  // namespace

extern const Roof roof_avx512vnni;
const Roof roof_avx512vnni = {Isa::kAvx512Vnni, int64_t{kSums} * kProducts, roof_loop};

}  // namespace voxpress
