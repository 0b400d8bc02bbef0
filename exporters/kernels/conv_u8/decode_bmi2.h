// From packed codes to int8 weights, kBytes at a time, for instruction sets with BMI2: codes are spread over bytes,
// where their width does not divide eight by eight codes of a word at once, then looked up sixteen palette entries at a
// time.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv_u8/weights.h"

namespace voxpress {
namespace {

// Whether all that is read for `count` weights from `first` on lies inside of the codes.
VOXPRESS_INLINE bool can_read_ahead(const Conv2dShape& s, const Conv2dWeights& weights, int64_t first, int64_t count) {
  const int64_t end = ((first + count - 8) * s.bits >> 3) + static_cast<int64_t>(sizeof(uint64_t));
  return s.bits <= 8 && count % 8 == 0 && end <= static_cast<int64_t>(weights.codes_bytes);
}

VOXPRESS_INLINE U8s look_up(const Int8Palette& palette, int bits, U8s codes) {
  const U8s low = codes & 15;
  U8s found = look_up_16(palette.values, low);
  for (int part = 1; part < (1 << bits) / 16; ++part) {
    const U8s here = look_up_16(palette.values + part * 16, low);
    found = (codes >> 4) == static_cast<uint8_t>(part) ? here : found;
  }
  return found;
}

typedef uint32_t U32s __attribute__((vector_size(kBytes)));

// kBytes codes of two, four or eight bits, from the start of a byte on: the bits of a byte move apart until each code
// has a byte of its own.
VOXPRESS_INLINE U8s spread(const uint8_t* packed, int32_t bits) {
  if (bits == 8) return load<U8s>(packed);
  if (bits == 4) {
    const U16s pairs = widen_to_shorts(packed);
    return (U8s)((pairs | pairs << 4) & 0x0f0f);
  }
  auto fours = (U32s)widen_bytes(packed);
  fours = (fours | fours << 12) & 0x000f000f;
  return (U8s)((fours | fours << 6) & 0x03030303);
}

// Codes of any width up to eight, `count` of them; the others are 0.
VOXPRESS_INLINE U8s unpack(const uint8_t* packed, int64_t first, int32_t bits, int64_t count) {
  uint8_t codes[kBytes] = {};
  const uint64_t mask = 0x0101010101010101u * ((1u << bits) - 1);
  for (int64_t j = 0; j < count; j += 8) {
    const int64_t bit = (first + j) * bits;
    uint64_t window;
    std::memcpy(&window, packed + (bit >> 3), sizeof(window));
    const uint64_t eight = _pdep_u64(window >> (bit & 7), mask);
    std::memcpy(codes + j, &eight, sizeof(eight));
  }
  return load<U8s>(codes);
}

// out[j] = the integer of weight first + j of the file, for j < count; count is kBytes, or less at the end of a row.
VOXPRESS_INLINE void decode_vector(const Conv2dShape& s, const Conv2dWeights& weights, const Int8Palette& palette,
                                   int64_t first, int64_t count, int8_t* out) {
  const auto* packed = static_cast<const uint8_t*>(weights.codes);
  const bool whole = count == kBytes && 8 % s.bits == 0 && first * s.bits % 8 == 0;
  if (whole && s.bits == 1) return store(out, select_by_bits(packed + first / 8, palette.values[0], palette.values[1]));
  const U8s codes = whole ? spread(packed + first * s.bits / 8, s.bits) : unpack(packed, first, s.bits, count);
  store(out, look_up(palette, s.bits, codes));
  if (count < kBytes) std::memset(out + count, 0, static_cast<size_t>(kBytes - count));
}

}  // namespace
}  // namespace voxpress
