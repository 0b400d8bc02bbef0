// What the integer kernels are written in. Included by lanes_<isa>.h after it has defined VOXPRESS_BYTES, the bytes of
// a vector register, VOXPRESS_VECTORS_U8 and VOXPRESS_ROWS_U8, the vectors of output channels and the positions that
// are summed in registers; it then adds what has no operator:
//
//   interleave_low, interleave_high  bytes of two vectors, side by side: of their first halves, or of every 16 bytes'
//   select_by_bits, look_up_16, widen_to_shorts  where VOXPRESS_BMI2 is defined, see decode_bmi2.h
//   widen_low, widen_high            in the same order bytes to 16 bits; pair_products what they are for
//   narrow                           16 bits to signed bytes, in order again
//   round_product                    (a * b + 2^14) >> 15
//   magnitude, larger                |a|; max(a, b)
//   fused, multiply_add              a * b + c, rounded once; the same for powers of two
//   dot_lanes                        sum[o] + the products of kDepth inputs and kDepth weights of lane o; dot_inputs
//                                    makes of inputs what it wants of them
//   store_panel_rows                 kPanelRows rows of kPanel outputs, rounded to 0..255 and at least `low`, `stride`
//                                    apart; values[j]: vector j % kVectors of row j / kVectors
//   add_bytes                        sum + bytes, in any lanes of the half of the vector that the bytes are in
//   largest_of_eight, sums_of_eight  of the lanes of each of eight vectors: of their first halves, then of their
//   second;
//                                    vectors that are not shared between tiles have all in the first eight
//
// and, for the loop that takes nearly all the time, how inputs and weights are to lie in memory:
//
//   kDotDepth, kInputBytes  products that are summed in a lane at a time, and the bytes of an input in its row
//   kInputSteps             times kDotDepth inputs are loaded at a time
//   store_transformed       16-bit numbers as inputs
//   store_gathered          bytes as inputs
//   kArranges               whether weights are arranged at all
//   arrange_step            weights of kDepth inputs from [kPanel][kDepth] to what dot wants
//   dot<step>               sum[o] += the products of kDotDepth inputs, the same for all o, and kDotDepth weights of o
//
// As in conv/vector.h everything lies in an unnamed namespace.
#pragma once

#include <cstdint>
#include <cstring>

#include "conv/inline.h"

namespace voxpress {
namespace {

constexpr int kBytes = VOXPRESS_BYTES;
constexpr int kShorts = kBytes / 2;
constexpr int kInts = kBytes / 4;
constexpr int kDepth = 4;  // input channels are padded to a multiple of it, by weights of zero
constexpr int kRows = VOXPRESS_ROWS_U8;
constexpr int kVectors = VOXPRESS_VECTORS_U8;
constexpr int kPanel = kVectors * kInts;  // output channels of a panel
constexpr int kPanelRows = 4 / kVectors;  // rows of a panel that are a vector of bytes
static_assert(kPanelRows * kVectors == 4 && kRows % kPanelRows == 0, "sums are rounded four vectors at a time");

typedef uint8_t U8s __attribute__((vector_size(kBytes)));
typedef int16_t S16s __attribute__((vector_size(kBytes)));
typedef uint16_t U16s __attribute__((vector_size(kBytes)));
typedef int32_t S32s __attribute__((vector_size(kBytes)));
typedef float F32s __attribute__((vector_size(kBytes)));

template <typename Vector>
VOXPRESS_INLINE Vector load(const void* source) {
  Vector value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

template <typename Vector>
VOXPRESS_INLINE void store(void* target, Vector value) {
  std::memcpy(target, &value, sizeof(value));
}

VOXPRESS_INLINE F32s broadcast(float value) { return value - F32s{}; }

// Four bytes, again and again.
VOXPRESS_INLINE S32s broadcast_four(const void* bytes) { return load<int32_t>(bytes) - S32s{}; }

}  // namespace
}  // namespace voxpress
