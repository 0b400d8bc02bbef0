// Bytes: four products a lane.
#include <immintrin.h>

#include <cstdint>

namespace voxpress {
namespace {

typedef int32_t Integers __attribute__((vector_size(64)));
inline Integers integers(int value) { return (Integers)_mm512_set1_epi32(value); }
inline Integers multiply_add(Integers sum, Integers factor, Integers& term) {
  return (Integers)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)factor, (__m512i)term);
}

}  // namespace
}  // namespace voxpress

#include "bench/roof_integers.h"

namespace voxpress {

extern const Roof roof_avx512vnni;
const Roof roof_avx512vnni = {Isa::kAvx512Vnni, 28 * 64, roof_loop<28>, true};

}  // namespace voxpress
