// Convolution of floats with int8 weights: the stem and the layers behind the pooling. Sums are those of the portable
// kernel, product by product in the order of the file.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv/position.h"
#include "conv_u8/decode.h"
#include "conv_u8/finish.h"
#include "conv_u8/multiply.h"
#include "conv_u8/weights.h"

namespace voxpress {
namespace {

constexpr int kFloatRows = kRows < 12 ? kRows : 12;
constexpr int kFloatVectors = (kFloatRows + kInts - 1) / kInts;  // that have room for as many floats
constexpr int kFloatTogether = 4;
constexpr int kPanelsTogether = 4;

struct FloatPlan {
  int64_t depth;
  int64_t row_floats;
  int64_t outputs;  // of a group
  int64_t panels;
  int64_t panel_bytes;
  Range range;
  int64_t rows;

  FloatPlan(const Conv2dShape& s, const Share& share) {
    depth = s.in_channels / s.groups;
    row_floats = s.kernel_frames * s.kernel_mel * depth;
    outputs = s.out_channels / s.groups;
    panels = ceil_div(outputs, kPanel);
    panel_bytes = row_floats * kPanel;
    range = share_of(s.batch * conv2d_out_frames(s) * conv2d_out_mel(s), share);
    const int64_t positions = most(1, range.end - range.begin);
    rows = rows_per_group(positions, kFloatRows);
  }
};

// Inputs k of `count` positions side by side along mel, from `position` on: [k][rows] of `target`. What lies outside is
// zero.
void gather_floats(const Conv2dU8Call& call, const FloatPlan& plan, const float* input, const Position& position,
                   int64_t count, float* target) {
  const Conv2dShape& s = call.shape->conv;
  const int64_t step = s.stride_mel * s.in_channels;
  const float* utterance = input + position.n() * s.in_frames * s.in_mel * s.in_channels;
  for (int64_t dt = 0; dt < s.kernel_frames; ++dt) {
    const int64_t frame = position.first_frame(s) + dt;
    const bool frame_inside = frame >= 0 && frame < s.in_frames;
    for (int64_t df = 0; df < s.kernel_mel; ++df) {
      const int64_t mel = position.first_mel(s) + df;
      const float* pixel = utterance + (frame * s.in_mel + mel) * s.in_channels;
      // A whole group of one channel side by side: nearly all of a stem's.
      if (step == 1 && count == kFloatRows && frame_inside && mel >= 0 && mel + kFloatRows <= s.in_mel) {
        std::memcpy(target, pixel, kFloatRows * sizeof(float));
        target += plan.rows;
        continue;
      }
      if (plan.rows == 1 && frame_inside && mel >= 0 && mel < s.in_mel) {  // a single position's lie as they are wanted
        std::memcpy(target, pixel, static_cast<size_t>(plan.depth) * sizeof(float));
        target += plan.depth;
        continue;
      }
      // Positions begin..end have this tap inside.
      const int64_t begin = mel < 0 ? least(count, ceil_div(-mel, s.stride_mel)) : 0;
      const int64_t end = frame_inside ? most(begin, least(count, ceil_div(s.in_mel - mel, s.stride_mel))) : begin;
      for (int64_t i = 0; i < plan.depth; ++i, target += plan.rows) {
        for (int64_t m = 0; m < begin; ++m) target[m] = 0.0f;
        if (step == 1) {
          for (int64_t m = begin; m < end; ++m) target[m] = pixel[m];
        } else {
          for (int64_t m = begin; m < end; ++m) target[m] = pixel[m * step + i];
        }
        for (int64_t m = end; m < count; ++m) target[m] = 0.0f;
      }
    }
  }
}

// sum[m][.] = sum over k of inputs[k][m] * weights[k][.], k ascending.
template <int kR>
VOXPRESS_INLINE void multiply_floats(const float* inputs, const int8_t* weights, int64_t depth,
                                     F32s (&sum)[kR][kVectors]) {
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; ++m) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[m][v] = F32s{};
  }
  for (int64_t k = 0; k < depth; ++k, inputs += kR, weights += kPanel) {
    F32s w[kVectors];
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      w[v] = __builtin_convertvector(widen_weights(weights + v * kInts), F32s);
    }
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) {
      const F32s x = broadcast(inputs[m]);
      VOXPRESS_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m][v] = sum[m][v] + x * w[v];
    }
  }
}

// The same, to sums[m * kPanel + .].
template <int kR>
struct MultiplyFloats {
  static void run(const float* inputs, const int8_t* weights, int64_t depth, float* sums) {
    F32s sum[kR][kVectors];
    multiply_floats<kR>(inputs, weights, depth, sum);
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) {
      VOXPRESS_UNROLL
      for (int v = 0; v < kVectors; ++v) store(sums + m * kPanel + v * kInts, sum[m][v]);
    }
  }
};

// One row times kCount panels, lest each addition wait for the one before: sums[panel * kPanel + .].
template <int kCount>
__attribute__((noinline)) void multiply_row(const float* inputs, const int8_t* weights, int64_t panel_bytes,
                                            int64_t depth, float* sums) {
  F32s sum[kCount][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, weights += kPanel) {
    const F32s x = broadcast(inputs[k]);
    VOXPRESS_UNROLL
    for (int p = 0; p < kCount; ++p) {
      VOXPRESS_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const S32s w = widen_weights(weights + p * panel_bytes + v * kInts);
        sum[p][v] = sum[p][v] + x * __builtin_convertvector(w, F32s);
      }
    }
  }
  VOXPRESS_UNROLL
  for (int p = 0; p < kCount; ++p) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kVectors; ++v) store(sums + p * kPanel + v * kInts, sum[p][v]);
  }
}

// Whole groups and panels without a residual, see PlainRows.
template <bool kOffset>
__attribute__((noinline)) void multiply_plain_floats(const FinishLanes& lanes, const float* inputs,
                                                     const int8_t* weights, int64_t depth, const PlainRows& rows) {
  F32s sum[kFloatRows][kVectors];
  multiply_floats<kFloatRows>(inputs, weights, depth, sum);
  finish_rows<kOffset, false>(lanes, rows, sum);
}

// 16 x 16 bytes: four times the rows of both halves are interleaved.
void transpose_square(const int8_t* source, int64_t source_stride, int8_t* target, int64_t target_stride) {
  typedef int8_t Row __attribute__((vector_size(16)));
  Row rows[16], next[16];
  for (int j = 0; j < 16; ++j) rows[j] = load<Row>(source + j * source_stride);
  VOXPRESS_UNROLL
  for (int round = 0; round < 4; ++round) {
    VOXPRESS_UNROLL
    for (int j = 0; j < 8; ++j) {
      next[2 * j] =
          __builtin_shufflevector(rows[j], rows[j + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * j + 1] =
          __builtin_shufflevector(rows[j], rows[j + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    VOXPRESS_UNROLL
    for (int j = 0; j < 16; ++j) rows[j] = next[j];
  }
  for (int j = 0; j < 16; ++j) store(target + j * target_stride, rows[j]);
}

// target[k][j] = values[j][k] for k < count.
void transpose(const int8_t (&values)[kPanel][kBytes], int64_t count, int8_t* target) {
  static_assert(kPanel % 16 == 0 && kBytes % 16 == 0, "squares of 16");
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    for (int j = 0; j < kPanel; j += 16) transpose_square(values[j] + k, kBytes, target + k * kPanel + j, kPanel);
  }
  for (; k < count; ++k) {
    for (int j = 0; j < kPanel; ++j) target[k * kPanel + j] = values[j][k];
  }
}

// windows[m] = the sum of row m; behind the last row may be anything.
void add_rows(const FloatPlan& plan, const float* gathered, float* windows) {
  F32s sum[kFloatVectors] = {};
  for (int64_t k = 0; k < plan.row_floats; ++k) {
    VOXPRESS_UNROLL
    for (int v = 0; v < kFloatVectors; ++v) sum[v] = sum[v] + load<F32s>(gathered + k * plan.rows + v * kInts);
  }
  VOXPRESS_UNROLL
  for (int v = 0; v < kFloatVectors; ++v) store(windows + v * kInts, sum[v]);
}

bool float_takes(const Conv2dU8Shape& s) { return s.input == Element::kF32; }

int64_t float_prepared_bytes(const Conv2dU8Shape& s) {
  const FloatPlan plan(s.conv, {});
  return round_up(s.conv.groups * plan.panels * plan.panel_bytes, 64);
}

void float_pack(const Conv2dU8Packing& packing) {
  const Conv2dShape& s = packing.shape->conv;
  const FloatPlan plan(s, {});
  const Range range = share_of(s.groups * plan.panels, packing.share);
  for (int64_t p = range.begin; p < range.end; ++p) {
    auto* panel = reinterpret_cast<int8_t*>(packing.prepared) + p * plan.panel_bytes;
    const int64_t first = p % plan.panels * kPanel;
    alignas(kBytes) int8_t values[kPanel][kBytes] = {};
    for (int64_t k0 = 0; k0 < plan.row_floats; k0 += kBytes) {
      const int64_t count = least(kBytes, plan.row_floats - k0);
      for (int64_t j = 0; j < least(kPanel, plan.outputs - first); ++j) {
        const int64_t o = p / plan.panels * plan.outputs + first + j;
        prefetch_codes(s, *packing.weights, o * plan.row_floats + k0);
        decode(s, *packing.weights, *packing.palette, o, k0, count, values[j]);
      }
      transpose(values, count, panel + k0 * kPanel);
    }
  }
}

int64_t float_scratch_bytes(const Conv2dU8Shape& s) {
  const FloatPlan plan(s.conv, {});
  return round_up((plan.row_floats * kFloatRows + kFloatVectors * kInts) * static_cast<int64_t>(sizeof(float)), 64);
}

void write_floats(const Conv2dU8Call& call, const float* sums, const float* windows, int64_t first, int64_t count,
                  int64_t first_channel, int64_t channels) {
  const FinishLanes lanes(call);
  const int64_t out_channels = call.shape->conv.out_channels;
  for (int v = 0; v < kVectors && v * kInts < channels; ++v) {
    const int64_t channel = first_channel + v * kInts;
    const F32s multiplier = load<F32s>(call.finish.multiplier + channel);
    const F32s start = start_of(lanes, call.finish.bias + channel);
    for (int64_t m = 0; m < count; m += kFloatTogether) {
      F32s t[kFloatTogether];
      VOXPRESS_UNROLL
      for (int j = 0; j < kFloatTogether; ++j) {
        t[j] = fused(load<F32s>(sums + (m + j) * kPanel + v * kInts), multiplier, start);
      }
      finish<kFloatTogether>(call, lanes,
                             {(first + m) * out_channels + channel, channel, channels - v * kInts, count - m},
                             windows + m, t);
    }
  }
}

void float_run(const Conv2dU8Call& call) {
  const Conv2dShape& s = call.shape->conv;
  const FloatPlan plan(s, call.share);
  auto* gathered = reinterpret_cast<float*>(call.scratch);
  std::memset(gathered, 0, static_cast<size_t>(plan.row_floats * plan.rows) * sizeof(float));
  const FinishLanes lanes(call);
  const bool plain = is_plain(call) && call.tensors->residual == nullptr;
  for (int64_t group = 0; group < s.groups; ++group) {
    const float* input = static_cast<const float*>(call.tensors->input) + group * plan.depth;
    Position position(s, plan.range.begin);
    for (int64_t first = plan.range.begin; first < plan.range.end; first += plan.rows) {
      const int64_t count = least(plan.rows, plan.range.end - first);
      // Rows behind the last position are multiplied like the others, and not written: any number does for them.
      for (int64_t m = 0; m < count;) {
        const int64_t together = least(count - m, position.left_in_line());
        gather_floats(call, plan, input, position, together, gathered + m);
        position.advance(together);
        m += together;
      }
      float windows[kFloatVectors * kInts + kFloatTogether] = {};
      if (call.finish.offset != nullptr) add_rows(plan, gathered, windows);
      const auto* group_panels =
          reinterpret_cast<const int8_t*>(call.prepared) + group * plan.panels * plan.panel_bytes;
      int64_t p = 0;
      for (; plan.rows == 1 && p + kPanelsTogether <= plan.panels; p += kPanelsTogether) {
        alignas(kBytes) float sums[kPanelsTogether + kFloatTogether][kPanel] = {};
        multiply_row<kPanelsTogether>(gathered, group_panels + p * plan.panel_bytes, plan.panel_bytes, plan.row_floats,
                                      sums[0]);
        for (int64_t j = 0; j < kPanelsTogether; ++j) {
          const int64_t channel = (p + j) * kPanel;
          write_floats(call, sums[j], windows, first, 1, group * plan.outputs + channel,
                       least(kPanel, plan.outputs - channel));
        }
      }
      for (; p < plan.panels; ++p) {
        const int8_t* panel = group_panels + p * plan.panel_bytes;
        const int64_t channel = group * plan.outputs + p * kPanel;
        const int64_t channels = least(kPanel, plan.outputs - p * kPanel);
        if (plain && count == kFloatRows && channels == kPanel) {
          const auto multiply =
              call.finish.offset != nullptr ? multiply_plain_floats<true> : multiply_plain_floats<false>;
          multiply(lanes, gathered, panel, plan.row_floats, plain_rows(call, windows, first, channel));
          continue;
        }
        alignas(kBytes) float sums[(kFloatRows + kFloatTogether) * kPanel];
        WithSteppedRows<MultiplyFloats, kFloatRows>::run(plan.rows, gathered, panel, plan.row_floats, sums);
        std::memset(sums + plan.rows * kPanel, 0, sizeof(float) * kFloatTogether * kPanel);
        write_floats(call, sums, windows, first, count, channel, channels);
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
