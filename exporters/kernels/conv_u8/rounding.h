// How transformed inputs and weights are rounded to int8: by a whole number of 1/32768, so that one 16-bit instruction
// of each instruction set does it (vpmulhrsw, sqrdmulh), bit for bit the same.
#pragma once

#include <cstdint>

#include "conv/inline.h"

namespace voxpress {
namespace {

constexpr float kRoundOne = 32768.0f;          // values of up to 127 stay what they are
constexpr float kRoundNumerator = 4161536.0f;  // 127 * 32768

// The factor, in 1/32768, for values of at most `largest`: none of them exceeds 127 afterwards.
VOXPRESS_INLINE int32_t rounding_factor(int32_t largest) {
  return largest <= 127 ? 32768 : static_cast<int32_t>(kRoundNumerator / static_cast<float>(largest));
}

// -value * factor / 32768, halves upwards. Negative, because +32768 is no 16-bit number.
VOXPRESS_INLINE int32_t round_to_int8(int32_t value, int32_t factor) { return (value * -factor + (1 << 14)) >> 15; }

}  // namespace
}  // namespace voxpress
