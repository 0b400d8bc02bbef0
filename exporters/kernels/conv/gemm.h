// The inner product that all but the depthwise kernels end in: kR rows of activations times one panel of weights.
//
// Activations lie in groups: [depth / kLanes][kR][kLanes], so that a group is read from front to back and all its rows
// are at constant distances. A panel of weights is [depth][kPanel].
#pragma once

#include "conv/vector.h"

namespace voxpress {
namespace {

// Weights come from outside the L2 cache when the positions are few; this far ahead they arrive in time.
constexpr int kPrefetchBytes = 5120;

VOXPRESS_INLINE void prefetch_weights(const float* panel) {
  const char* ahead = reinterpret_cast<const char*>(panel) + kPrefetchBytes;
  constexpr int kLineBytes = 64;
  for (int byte = 0; byte < kPanel * static_cast<int>(sizeof(float)); byte += kLineBytes) {
    __builtin_prefetch(ahead + byte);
  }
}

template <int kR>
VOXPRESS_INLINE void multiply_step(const float* a, const float* panel, Lanes (&sum)[kR][kVectors]) {
  prefetch_weights(panel);
  Lanes w[kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) w[v] = load(panel + v * kLanes);
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    const Lanes x = broadcast(a[m * kLanes]);
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] += x * w[v];
  }
}

// sum[m][.] = sum over k < depth of a[k / kLanes][m][k % kLanes] * panel[k][.], k ascending whatever kR is.
template <int kR>
VOXPRESS_INLINE void multiply(const float* a, const float* panel, int64_t depth, Lanes (&sum)[kR][kVectors]) {
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = Lanes{};
  }
  for (; depth >= kLanes; depth -= kLanes, a += kR * kLanes) {
    // Unrolled, its loads would be moved ahead and push the sums out of their registers.
    VOXPRESS_KEEP_LOOP
    for (int k = 0; k < kLanes; ++k, panel += kPanel) multiply_step<kR>(a + k, panel, sum);
  }
  for (int64_t k = 0; k < depth; ++k, panel += kPanel) multiply_step<kR>(a + k, panel, sum);
}

// Writes the sums of row m from target + m * row_floats on. To be read from there: a sum that is chosen by a variable
// cannot stay in a register.
template <int kR>
VOXPRESS_INLINE void store_sums(const Lanes (&sum)[kR][kVectors], int64_t row_floats, float* target) {
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) store(target + m * row_floats + v * kLanes, sum[m][v]);
  }
}

// Rows per group that cut `count` rows into the fewest groups, as even as they can be.
VOXPRESS_INLINE int64_t rows_per_group(int64_t count) { return ceil_div(count, ceil_div(count, kRows)); }

}  // namespace
}  // namespace voxpress
