// Bytes: four products a lane.
#include <arm_neon.h>

#include <cstdint>

namespace voxpress {
namespace {

typedef int32_t Integers __attribute__((vector_size(16)));
inline Integers integers(int value) { return (Integers)vdupq_n_s32(value); }
inline Integers multiply_add(Integers sum, Integers factor, Integers& term) {
  return (Integers)vdotq_s32((int32x4_t)sum, (int8x16_t)factor, (int8x16_t)term);
}

}  // namespace
}  // namespace voxpress

#include "bench/roof_integers.h"

namespace voxpress {

extern const Roof roof_integers_neondot;
const Roof roof_integers_neondot = {Isa::kNeonDot, 24 * 16, roof_loop<24>, true};

}  // namespace voxpress
