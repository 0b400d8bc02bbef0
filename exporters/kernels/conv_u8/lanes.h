// What the integer kernels are written in. Included by lanes_<isa>.h after it has defined VOXPRESS_BYTES, the bytes of
// a vector register, VOXPRESS_VECTORS_U8 and VOXPRESS_ROWS_U8, the vectors of output channels and the positions that
// are summed in registers; it then adds what has no operator:
//
//   kDepth, kInputBytes       inputs of one row that a product takes at a time, and how each lies in memory
//   kRaised, kLowered         what is added to transformed inputs, and taken from bytes of the input, to make them such
//   kHalves                   true if two tiles of few channels share vectors; largest_of_eight then keeps them apart
//   widen_low, widen_high     bytes to 16 bits, by halves of the vector or of every 16 bytes of it, as store_inputs
//                             wants them
//   store_inputs(to, l, h)    16-bit numbers as inputs
//   store_bytes(to, bytes)    bytes as inputs, less kLowered
//   input_at(row, k)          input k of a row, plus kLowered
//   round_product             (a * b + 2^14) >> 15
//   magnitude, larger         |a|; max(a, b)
//   load_inputs, load_weights operands of dot: kInputSteps times kDepth inputs of one row, kInts times kDepth weights
//   dot<step>(i, w, sum)      sum[o] += the products of kDepth inputs, the same for all o, and kDepth weights of o
//   place_in_step(k, o)       where weight k of output channel o lies in a step's kDepth * kPanel
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
