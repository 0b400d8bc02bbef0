// The inner product of the integer kernels: kR rows of bytes times one panel of int8 weights.
//
// Rows lie in groups: [depth / kSlot][kR][kSlot inputs], so that all of a group are at constant distances; kSlot is
// kBytes, or half of it for few channels. A panel of weights is made as [depth / kDepth][kPanel][kDepth]; then
// arrange_weights sees to each kDepth * kPanel.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv/inline.h"

namespace voxpress {
namespace {

// Rows per group that cut `count` rows into the fewest groups: 1 or a multiple of two less than the limit, as even as
// that lets them be.
VOXPRESS_INLINE int64_t rows_per_group(int64_t count, int64_t limit) {
  const int64_t rows = ceil_div(count, ceil_div(count, limit));
  return rows == 1 ? 1 : rows + (limit - rows) % 2;
}

// Calls Body<rows>::run(arguments...) for such a number of rows.
template <template <int> class Body, int kMost>
struct WithSteppedRows {
  template <typename... Arguments>
  static void run(int64_t rows, Arguments&&... arguments) {
    if constexpr (kMost > 1) {
      if (rows < kMost) return WithSteppedRows < Body, kMost == 2 ? 1 : kMost - 2 > ::run(rows, arguments...);
    }
    Body<kMost>::run(arguments...);
  }
};

constexpr int kPrefetchBytes = 4096;         // of weights ahead: enough for what comes from a cache shared by cores
constexpr int kStepBytes = kPanel * kDepth;  // of weights
constexpr int kDotBytes = kPanel * kDotDepth;
constexpr int kLineBytes = 64;
static_assert(kInputSteps == 1 || kInputSteps == 4, "multiply_steps is written out for these");

// The inputs of rows: read when they are wanted or, where a load gives those of several steps, kept.
struct StreamedRows {
  const uint8_t* inputs;
  int64_t row_bytes;

  VOXPRESS_INLINE auto operator[](int m) const { return load_inputs(inputs + m * row_bytes); }
};

// Step kStep of those that the rows are loaded for.
template <int kR, int kStep, typename Rows>
VOXPRESS_INLINE void multiply_step(const Rows& rows, const int8_t* weights, S32s (&sum)[kR][kVectors]) {
  for (int byte = 0; byte < kDotBytes; byte += kLineBytes) __builtin_prefetch(weights + kPrefetchBytes + byte);
  decltype(load_weights(weights)) w[kVectors];
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) w[v] = load_weights(weights + v * kInts * kDotDepth);
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) dot<kStep>(rows[m], w, sum[m]);
}

// The first `steps` of the kInputSteps steps of a load; all if kAll.
template <int kR, bool kAll>
VOXPRESS_INLINE void multiply_steps(const StreamedRows& rows, int64_t steps, const int8_t* weights,
                                    S32s (&sum)[kR][kVectors]) {
  if constexpr (kInputSteps == 1) {
    multiply_step<kR, 0>(rows, weights, sum);
  } else {
    decltype(rows[0]) kept[kR];
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) kept[m] = rows[m];
    multiply_step<kR, 0>(kept, weights, sum);
    if (kAll || steps > 1) multiply_step<kR, 1>(kept, weights + kDotBytes, sum);
    if (kAll || steps > 2) multiply_step<kR, 2>(kept, weights + 2 * kDotBytes, sum);
    if (kAll || steps > 3) multiply_step<kR, 3>(kept, weights + 3 * kDotBytes, sum);
  }
}

// sum[m][.] = start[.] + sum over k < steps * kDepth of inputs[m][k] * weights[k][.], in registers.
template <int kR, int kSlot>
VOXPRESS_INLINE void multiply(const uint8_t* inputs, const int8_t* weights, int64_t steps, const int32_t* start,
                              S32s (&sum)[kR][kVectors]) {
  constexpr int kSteps = kSlot / kDotDepth;
  constexpr int kRowBytes = kSlot * kInputBytes;
  constexpr int kLoadBytes = kInputSteps * kDotDepth * kInputBytes;
  VOXPRESS_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const S32s first = load<S32s>(start + v * kInts);
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) sum[m][v] = first;
  }
  steps *= kDepth / kDotDepth;
  for (; steps >= kSteps; steps -= kSteps, inputs += kR * kRowBytes) {
    VOXPRESS_KEEP_LOOP
    for (int k = 0; k < kSteps / kInputSteps; ++k, weights += kInputSteps * kDotBytes) {
      multiply_steps<kR, true>({inputs + k * kLoadBytes, kRowBytes}, kInputSteps, weights, sum);
    }
  }
  for (; steps > 0; steps -= kInputSteps, inputs += kLoadBytes, weights += kInputSteps * kDotBytes) {
    multiply_steps<kR, false>({inputs, kRowBytes}, steps, weights, sum);
  }
}

// The same, to sums[m * kPanel + .].
template <int kR, int kSlot>
VOXPRESS_INLINE void multiply(const uint8_t* inputs, const int8_t* weights, int64_t steps, const int32_t* start,
                              int32_t* sums) {
  S32s sum[kR][kVectors];
  multiply<kR, kSlot>(inputs, weights, steps, start, sum);
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) store(sums + m * kPanel + v * kInts, sum[m][v]);
  }
}

// starts[.] = times * the sum of all weights of a panel: what makes good that all inputs are off by as much. To be
// called before arrange_weights.
VOXPRESS_INLINE void add_weights(const int8_t* weights, int64_t steps, int32_t times, int32_t* starts) {
  const DotInputs ones = dot_inputs(S32s{} + 0x01010101);
  S32s sum[kVectors] = {};
  for (int64_t k = 0; k < steps; ++k, weights += kStepBytes) {
    for (int v = 0; v < kVectors; ++v) sum[v] = dot_lanes(sum[v], ones, load<S32s>(weights + v * kBytes));
  }
  for (int v = 0; v < kVectors; ++v) store(starts + v * kInts, sum[v] * times);
}

VOXPRESS_INLINE void arrange_weights(int8_t* weights, int64_t steps) {
  if constexpr (kArranges) {
    for (int64_t k = 0; k < steps; ++k, weights += kStepBytes) arrange_step(weights);
  }
}

}  // namespace
}  // namespace voxpress
