// The inner product of the integer kernels: kR rows of bytes times one panel of int8 weights.
//
// Rows lie in groups: [depth / kSlot][kR][kSlot bytes], so that all of a group are at constant distances; kSlot is
// kBytes, or half of it for few channels. A panel of weights is [depth / kDepth][kPanel][kDepth].
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv/inline.h"

namespace voxpress {
namespace {

constexpr int kPrefetchBytes = 1024;
constexpr int kStepBytes = kVectors * kBytes;  // of weights

template <int kR>
VOXPRESS_INLINE void multiply_step(const uint8_t* inputs, int64_t row_bytes, const int8_t* weights,
                                   S32s (&sum)[kR][kVectors]) {
  S32s w[kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    w[v] = load<S32s>(weights + v * kBytes);
    __builtin_prefetch(weights + kPrefetchBytes + v * kBytes);
  }
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = dot(sum[m][v], inputs + m * row_bytes, w[v]);
  }
}

// sums[m * sum_ints + .] = start[.] + sum over k < steps * kDepth of inputs[m][k] * weights[k][.].
template <int kR, int kSlot>
VOXPRESS_INLINE void multiply(const uint8_t* inputs, const int8_t* weights, int64_t steps, const int32_t* start,
                              int32_t* sums, int64_t sum_ints) {
  constexpr int kSteps = kSlot / kDepth;
  S32s sum[kR][kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const S32s first = load<S32s>(start + v * kInts);
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) sum[m][v] = first;
  }
  for (; steps >= kSteps; steps -= kSteps, inputs += kR * kSlot) {
    VOXPRESS_KEEP_LOOP
    for (int k = 0; k < kSteps; ++k, weights += kStepBytes) {
      multiply_step<kR>(inputs + k * kDepth, kSlot, weights, sum);
    }
  }
  for (int64_t k = 0; k < steps; ++k, weights += kStepBytes) {
    multiply_step<kR>(inputs + k * kDepth, kSlot, weights, sum);
  }
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) store(sums + m * sum_ints + v * kInts, sum[m][v]);
  }
}

}  // namespace
}  // namespace voxpress
