// The inner product of conv/gemm.h in half precision, sums included: compiled to count its cycles (see
// device_tests/bench/arm_cycles.py), part of no kernel. Why none uses it: exporters/README.md.
#include <arm_neon.h>

#include <cstdint>

#include "conv/inline.h"

namespace voxpress {

constexpr int kHalfRows = 6, kHalfVectors = 4, kHalfLanes = 8;

// sums[m][.] = sum over k < 8 * steps of a[k / 8][m][k % 8] * panel[k][.].
void half_product(const float16_t* a, const float16_t* panel, int64_t steps, float16_t* sums) {
  float16x8_t sum[kHalfRows][kHalfVectors] = {};
  VOXPRESS_KEEP_LOOP
  for (; steps > 0; --steps, a += kHalfRows * kHalfLanes) {
    VOXPRESS_KEEP_LOOP
    for (int k = 0; k < kHalfLanes; ++k, panel += kHalfVectors * kHalfLanes) {
      float16x8_t w[kHalfVectors];
      VOXPRESS_UNROLL
      for (int v = 0; v < kHalfVectors; ++v) w[v] = vld1q_f16(panel + v * kHalfLanes);
      VOXPRESS_UNROLL
      for (int m = 0; m < kHalfRows; ++m) {
        const float16x8_t x = vdupq_n_f16(a[m * kHalfLanes + k]);
        VOXPRESS_UNROLL
        for (int v = 0; v < kHalfVectors; ++v) sum[m][v] = vfmaq_f16(sum[m][v], x, w[v]);
      }
    }
  }
  VOXPRESS_UNROLL
  for (int m = 0; m < kHalfRows; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kHalfVectors; ++v) vst1q_f16(sums + (m * kHalfVectors + v) * kHalfLanes, sum[m][v]);
  }
}

}  // namespace voxpress
