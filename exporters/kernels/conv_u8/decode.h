// From the weights of the file to int8, as fast as the instruction set can.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv_u8/weights.h"
#if defined(VOXPRESS_BMI2)
#include "conv_u8/decode_bmi2.h"
#endif

namespace voxpress {
namespace {

// Where rows are read in turns no hardware sees that each goes on: what follows weight `first` of the file, which may
// come from main memory.
VOXPRESS_INLINE void prefetch_codes(const Conv2dShape& s, const Conv2dWeights& weights, int64_t first) {
  constexpr int64_t kAheadBytes = 256;
  const int64_t at = first * s.bits / 8 + kAheadBytes;
  if (at < static_cast<int64_t>(weights.codes_bytes)) {
    __builtin_prefetch(static_cast<const char*>(weights.codes) + at);
  }
}

// Like decode_int8, for up to kBytes weights; `out` has room for kBytes.
VOXPRESS_INLINE void decode(const Conv2dShape& s, const Conv2dWeights& weights, const Int8Palette& palette,
                            int64_t channel, int64_t first, int64_t count, int8_t* out) {
#if defined(VOXPRESS_BMI2)
  const int64_t start = channel * (s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups)) + first;
  if (can_read_ahead(s, weights, start, count)) return decode_vector(s, weights, palette, start, count, out);
#endif
  decode_int8(s, weights, palette, channel, first, count, out);
}

}  // namespace
}  // namespace voxpress
