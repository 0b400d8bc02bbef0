// The inner product of the integer kernels: kR rows of bytes times one panel of int8 weights.
//
// Rows lie in groups: [depth / kSlot][kR][kSlot bytes], so that all of a group are at constant distances; kSlot is
// kBytes, or half of it for few channels. A panel of weights is [depth / kDepth][kPanel][kDepth].
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv/inline.h"

namespace voxpress {
namespace {

// Rows per group that cut `count` rows into the fewest groups, as even as they can be; but to save code only 1, even
// numbers, and `limit` (even) and what is one less, which most maps with many rows have.
VOXPRESS_INLINE int64_t rows_per_group(int64_t count, int64_t limit) {
  const int64_t rows = ceil_div(count, ceil_div(count, limit));
  return rows == 1 || rows == limit - 1 ? rows : round_up(rows, 2);
}

// Calls Body<rows>::run(arguments...) for such a number of rows.
template <template <int> class Body, int kLimit, int kR = kLimit>
struct WithSomeRows {
  static constexpr int kNext = kR == kLimit || kR == 2 ? kR - 1 : kR == kLimit - 1 ? kR - 1 : kR - 2;
  template <typename... Arguments>
  static void run(int64_t rows, Arguments&&... arguments) {
    if constexpr (kR > 1) {
      if (rows < kR) return WithSomeRows<Body, kLimit, kNext>::run(rows, arguments...);
    }
    Body<kR>::run(arguments...);
  }
};

constexpr int kPrefetchBytes = 1024;
constexpr int kLineBytes = 64;
constexpr int kStepBytes = kVectors * kBytes;  // of weights

VOXPRESS_INLINE S32s broadcast_inputs(const uint8_t* inputs) {
  int32_t four;
  std::memcpy(&four, inputs, sizeof(four));
  return four - S32s{};
}

template <int kR>
VOXPRESS_INLINE void multiply_step(const uint8_t* inputs, int64_t row_bytes, const int8_t* weights,
                                   S32s (&sum)[kR][kVectors]) {
  S32s w[kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) w[v] = load<S32s>(weights + v * kBytes);
  VOXPRESS_UNROLL
  for (int byte = 0; byte < kStepBytes; byte += kLineBytes) __builtin_prefetch(weights + kPrefetchBytes + byte);
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    const S32s x = broadcast_inputs(inputs + m * row_bytes);
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = dot_lanes(sum[m][v], x, w[v]);
  }
}

// sums[m * kPanel + .] = start[.] + sum over k < steps * kDepth of inputs[m][k] * weights[k][.].
template <int kR, int kSlot>
VOXPRESS_INLINE void multiply(const uint8_t* inputs, const int8_t* weights, int64_t steps, const int32_t* start,
                              int32_t* sums) {
  constexpr int kSteps = kSlot / kDepth;
  S32s sum[kR][kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const S32s first = load<S32s>(start + v * kInts);
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) sum[m][v] = first;
  }
  for (; steps >= kSteps; steps -= kSteps, inputs += kR * kSlot) {
#if defined(VOXPRESS_MULTIPLY_SLOT)
    multiply_slot(inputs, weights, sum);
    weights += kSteps * kStepBytes;
#else
    VOXPRESS_KEEP_LOOP
    for (int k = 0; k < kSteps; ++k, weights += kStepBytes) {
      multiply_step<kR>(inputs + k * kDepth, kSlot, weights, sum);
    }
#endif
  }
  for (int64_t k = 0; k < steps; ++k, weights += kStepBytes) {
    multiply_step<kR>(inputs + k * kDepth, kSlot, weights, sum);
  }
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) store(sums + m * kPanel + v * kInts, sum[m][v]);
  }
}

// starts[.] = times * the sum of all weights of a panel: what makes good that all inputs are off by as much.
VOXPRESS_INLINE void add_weights(const int8_t* weights, int64_t steps, int32_t times, int32_t* starts) {
  const S32s ones = S32s{} + 0x01010101;
  S32s sum[kVectors] = {};
  for (int64_t k = 0; k < steps; ++k, weights += kStepBytes) {
    for (int v = 0; v < kVectors; ++v) sum[v] = dot_lanes(sum[v], ones, load<S32s>(weights + v * kBytes));
  }
  for (int v = 0; v < kVectors; ++v) store(starts + v * kInts, sum[v] * times);
}

}  // namespace
}  // namespace voxpress
