// What the integer kernels are written in. Included by lanes_<isa>.h after it has defined VOXPRESS_BYTES, the bytes of
// a vector register, and VOXPRESS_ROWS_U8, the positions that are summed in registers; it then adds what has no
// operator:
//
//   widen_low, widen_high  bytes to 16 bits; of every 16 bytes the first and the last eight. What is narrowed later is
//   in narrow                 order again round_product          (a * b + 2^14) >> 15 magnitude, larger      |a|;
//   max(a, b) dot                    sum[o] + the products of kDepth inputs, the same for all o, and kDepth weights of
//   o
//   ...
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
constexpr int kDepth = 4;  // products that are summed in a lane by one instruction
constexpr int kRows = VOXPRESS_ROWS_U8;
constexpr int kVectors = VOXPRESS_VECTORS_U8;
constexpr int kPanel = kVectors * kInts;  // output channels of a panel

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

}  // namespace
}  // namespace voxpress
