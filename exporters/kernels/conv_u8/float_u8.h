// Convolution of floats with int8 weights: the stem and the layers behind the pooling. Sums are those of the portable
// kernel, product by product in the order of the file.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv_u8/decode.h"
#include "conv_u8/finish.h"
#include "conv_u8/multiply.h"
#include "conv_u8/position.h"
#include "conv_u8/weights.h"

namespace voxpress {
namespace {

constexpr int kFloatRows = kRows < 12 ? kRows : 12;
constexpr int kFloatTogether = 4;

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
      // Positions begin..end have this tap inside.
      const int64_t mel = position.first_mel(s) + df;
      const int64_t begin = mel < 0 ? least(count, ceil_div(-mel, s.stride_mel)) : 0;
      const int64_t end = frame_inside ? most(begin, least(count, ceil_div(s.in_mel - mel, s.stride_mel))) : begin;
      const float* pixel = utterance + (frame * s.in_mel + mel) * s.in_channels;
      for (int64_t i = 0; i < plan.depth; ++i, target += plan.rows) {
        for (int64_t m = 0; m < begin; ++m) target[m] = 0.0f;
        if (step == 1) {  // one channel: side by side
          for (int64_t m = begin; m < end; ++m) target[m] = pixel[m];
        } else {
          for (int64_t m = begin; m < end; ++m) target[m] = pixel[m * step + i];
        }
        for (int64_t m = end; m < count; ++m) target[m] = 0.0f;
      }
    }
  }
}

// sums[m][.] = sum over k of inputs[k][m] * weights[k][.], k ascending.
template <int kR>
struct MultiplyFloats {
  static void run(const float* inputs, const int8_t* weights, int64_t depth, float* sums) {
    F32s sum[kR][kVectors] = {};
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
    VOXPRESS_UNROLL
    for (int m = 0; m < kR; ++m) {
      VOXPRESS_UNROLL
      for (int v = 0; v < kVectors; ++v) store(sums + m * kPanel + v * kInts, sum[m][v]);
    }
  }
};

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
    std::memset(panel, 0, static_cast<size_t>(plan.panel_bytes));
    const int64_t first = p % plan.panels * kPanel;
    for (int64_t j = 0; j < least(kPanel, plan.outputs - first); ++j) {
      for (int64_t k0 = 0; k0 < plan.row_floats; k0 += kBytes) {
        alignas(kBytes) int8_t values[kBytes];
        const int64_t count = least(kBytes, plan.row_floats - k0);
        decode(s, *packing.weights, *packing.palette, p / plan.panels * plan.outputs + first + j, k0, count, values);
        for (int64_t k = 0; k < count; ++k) panel[(k0 + k) * kPanel + j] = values[k];
      }
    }
  }
}

int64_t float_scratch_bytes(const Conv2dU8Shape& s) {
  const FloatPlan plan(s.conv, {});
  return round_up(plan.row_floats * kFloatRows * static_cast<int64_t>(sizeof(float)), 64);
}

void write_floats(const Conv2dU8Call& call, const float* sums, const float* windows, int64_t first, int64_t count,
                  int64_t first_channel, int64_t channels) {
  const FinishLanes lanes(call);
  const int64_t out_channels = call.shape->conv.out_channels;
  for (int v = 0; v < kVectors && v * kInts < channels; ++v) {
    const int64_t channel = first_channel + v * kInts;
    const F32s multiplier = load<F32s>(call.finish.multiplier + channel);
    for (int64_t m = 0; m < count; m += kFloatTogether) {
      F32s t[kFloatTogether];
      VOXPRESS_UNROLL
      for (int j = 0; j < kFloatTogether; ++j) {
        t[j] = load<F32s>(sums + (m + j) * kPanel + v * kInts) * multiplier;
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
      float windows[kFloatRows + kFloatTogether] = {};
      if (call.finish.offset != nullptr) {
        for (int64_t k = 0; k < plan.row_floats; ++k) {
          for (int64_t m = 0; m < count; ++m) windows[m] = windows[m] + gathered[k * plan.rows + m];
        }
      }
      for (int64_t p = 0; p < plan.panels; ++p) {
        alignas(kBytes) float sums[(kFloatRows + kFloatTogether) * kPanel];
        const auto* panel =
            reinterpret_cast<const int8_t*>(call.prepared) + (group * plan.panels + p) * plan.panel_bytes;
        WithSteppedRows<MultiplyFloats, kFloatRows>::run(plan.rows, gathered, panel, plan.row_floats, sums);
        std::memset(sums + plan.rows * kPanel, 0, sizeof(float) * kFloatTogether * kPanel);
        write_floats(call, sums, windows, first, count, group * plan.outputs + p * kPanel,
                     least(kPanel, plan.outputs - p * kPanel));
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
