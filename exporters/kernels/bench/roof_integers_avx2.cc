// Words: two products a lane, and an addition of its own. Bytes take two multiplications for four.
#include <immintrin.h>

#include <cstdint>

#include "bench/touch.h"

namespace voxpress {
namespace {

typedef int32_t Integers __attribute__((vector_size(32)));
inline Integers integers(int value) { return (Integers)_mm256_set1_epi32(value); }
inline Integers multiply_add(Integers sum, Integers factor, Integers& term) {
  VOXPRESS_TOUCH(term);  // else the one product would be taken out of the loop
  return sum + (Integers)_mm256_madd_epi16((__m256i)factor, (__m256i)term);
}

}  // namespace
}  // namespace voxpress

#include "bench/roof_integers.h"

namespace voxpress {

extern const Roof roof_integers_avx2;
const Roof roof_integers_avx2 = {Isa::kAvx2, 12 * 16, roof_loop<12>, true};

}  // namespace voxpress
