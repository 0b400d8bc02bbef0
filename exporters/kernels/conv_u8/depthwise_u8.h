// Depthwise convolution of bytes: every channel has its own taps, so channels are the vector. Four taps, one below the
// other, are interleaved byte by byte and multiplied at once.
//
// Three taps take three of the four: with stride 1 the rows of two output lines are four, interleaved once for both.
//
// Interleaving leaves channels in an order of its own: lane e of group q of each 16 bytes is channel 4 * q + e of them.
// Rounding back to bytes undoes it.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv/position.h"
#include "conv_u8/finish.h"
#include "conv_u8/weights.h"

namespace voxpress {
namespace {

constexpr int kTapsTogether = 4;
constexpr int kGroups = 4;  // of channels, kInts each, that make up a vector of bytes

// Column of taps -> kGroups vectors.
struct Column {
  DotInputs group[kGroups];
};

// 3x3 taps with stride 1 are prepared twice, for the first of two lines and for the second, a row below.
constexpr int kLinesTogether = 2;

bool takes_lines_together(const Conv2dShape& s) {
  return s.kernel_frames == 3 && s.kernel_mel == 3 && s.stride_frames == 1 && s.stride_mel == 1;
}

struct DepthwisePlan {
  int64_t steps;        // of kTapsTogether taps in a column
  int64_t columns;      // kernel_mel
  int64_t blocks;       // of kBytes channels
  int64_t sets;         // of weights: kLinesTogether, or one
  int64_t block_bytes;  // prepared: starts [kGroups][kInts], then [sets][columns][steps][kGroups] vectors of weights
  Range lines;          // of the output

  DepthwisePlan(const Conv2dShape& s, const Share& share) {
    steps = ceil_div(s.kernel_frames, kTapsTogether);
    columns = s.kernel_mel;
    blocks = ceil_div(s.out_channels, kBytes);
    sets = takes_lines_together(s) ? kLinesTogether : 1;
    block_bytes = (1 + sets * columns * steps) * kGroups * kBytes;
    lines = share_of(s.batch * conv2d_out_frames(s), share);
  }
};

// Which channel of a block of kBytes lies in lane `lane` of group `group`.
VOXPRESS_INLINE int64_t channel_at(int group, int lane) { return lane / 4 * 16 + group * 4 + lane % 4; }

VOXPRESS_INLINE Column interleave(const U8s (&row)[kTapsTogether]) {
  const U8s low01 = interleave_low(row[0], row[1]);
  const U8s high01 = interleave_high(row[0], row[1]);
  const U8s low23 = interleave_low(row[2], row[3]);
  const U8s high23 = interleave_high(row[2], row[3]);
  return {{dot_inputs(interleave_pairs_low(low01, low23)), dot_inputs(interleave_pairs_high(low01, low23)),
           dot_inputs(interleave_pairs_low(high01, high23)), dot_inputs(interleave_pairs_high(high01, high23))}};
}

// A line of the input; what lies outside is the same pixel again and again.
struct InputRow {
  const uint8_t* start;
  int64_t step;  // from one pixel to the next
};

// One block of channels in one line of the output, or in kLinesTogether.
struct DepthwiseLine {
  const Conv2dU8Call* call;
  const DepthwisePlan* plan;
  const InputRow* rows;  // from the block's first channel on, one for each kernel frame and more to make steps whole
  int64_t channel;
  int64_t channels;  // of the block that exist
  int64_t first_output;
  const S32s* prepared;
};

// Parameters of a block's outputs, in the order of its lanes.
struct BlockFinish {
  F32s multiplier[kGroups];
  F32s offset[kGroups];
  F32s start[kGroups];

  BlockFinish(const Conv2dU8Call& call, int64_t channel, int64_t channels) {
    for (int group = 0; group < kGroups; ++group) {
      float lanes[3][kInts] = {};
      for (int lane = 0; lane < kInts; ++lane) {
        const int64_t c = channel_at(group, lane);
        if (c >= channels) continue;
        lanes[0][lane] = call.finish.multiplier[channel + c];
        lanes[1][lane] = call.finish.offset == nullptr ? 0.0f : call.finish.offset[channel + c];
        lanes[2][lane] = call.finish.bias[channel + c] + call.finish.residual_shift;
      }
      multiplier[group] = load<F32s>(lanes[0]);
      offset[group] = load<F32s>(lanes[1]);
      start[group] = load<F32s>(lanes[2]);
    }
  }
};

template <bool kWhole>
VOXPRESS_INLINE Column load_column(const DepthwiseLine& line, int64_t step, int64_t mel, const Column& outside) {
  if (mel < 0 || mel >= line.call->shape->conv.in_mel) return outside;
  U8s taps[kTapsTogether];
  VOXPRESS_UNROLL
  for (int j = 0; j < kTapsTogether; ++j) {
    const InputRow& row = line.rows[step * kTapsTogether + j];
    const uint8_t* source = row.start + mel * row.step;
    if constexpr (kWhole) {
      taps[j] = load<U8s>(source);
    } else {
      alignas(kBytes) uint8_t bytes[kBytes] = {};
      std::memcpy(bytes, source, static_cast<size_t>(line.channels));
      taps[j] = load<U8s>(bytes);
    }
    taps[j] = taps[j] ^ kGatheredFlip;
  }
  return interleave(taps);
}

Column outside_column(const Conv2dU8Call& call) {
  const auto four = static_cast<int32_t>(0x01010101u * static_cast<uint8_t>(call.shape->in.zero ^ kGatheredFlip));
  const DotInputs all = dot_inputs(four - S32s{});
  return {{all, all, all, all}};
}

// Sums of one output, and of its window where they count.
struct DepthwiseSums {
  S32s products[kGroups];
  S32s inputs[kGroups];
};

void write_depthwise_slowly(const DepthwiseLine& line, int64_t output, const F32s (&t)[kGroups]) {
  // What follows, channel by channel in their own order.
  float in_order[kBytes];
  for (int g = 0; g < kGroups; ++g) {
    float lanes[kInts];
    store(lanes, t[g]);
    for (int lane = 0; lane < kInts; ++lane) in_order[channel_at(g, lane)] = lanes[lane];
  }
  const Conv2dU8Call& call = *line.call;
  const FinishLanes lanes(call);
  for (int64_t c = 0; c < line.channels; c += kInts) {
    F32s pixels[4] = {load<F32s>(in_order + c)};
    finish_ragged<4>(
        call, lanes,
        {output * call.shape->conv.out_channels + line.channel + c, line.channel + c, line.channels - c, 1}, nullptr,
        pixels);
  }
}

// kPlain: a whole block without a residual, in bytes.
template <bool kPlain, bool kOffset>
VOXPRESS_INLINE void write_depthwise(const DepthwiseLine& line, const BlockFinish& block, const FinishLanes& lanes,
                                     int64_t output, const DepthwiseSums& sums) {
  const Conv2dU8Call& call = *line.call;
  F32s t[kGroups];
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    t[g] = fused(to_floats(sums.products[g]), block.multiplier[g], block.start[g]);
    if constexpr (kOffset) t[g] = fused(to_floats(sums.inputs[g]), block.offset[g], t[g]);
  }
  if constexpr (kPlain) {
    auto* target = static_cast<uint8_t*>(call.tensors->output) + output * call.shape->conv.out_channels + line.channel;
    store(target, round_together(t, lanes.low));
  } else {
    write_depthwise_slowly(line, output, t);
  }
}

// The number of taps of a window is the same everywhere: what lies outside counts as the zero point.
VOXPRESS_INLINE DepthwiseSums start_sums(const DepthwiseLine& line) {
  const Conv2dU8Shape& s = *line.call->shape;
  DepthwiseSums sums;
  const auto taps = static_cast<int32_t>(s.conv.kernel_frames * s.conv.kernel_mel);
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    sums.products[g] = load<S32s>(line.prepared + g);
    sums.inputs[g] = S32s{} - taps * (s.in.zero - kGatheredFlip);
  }
  return sums;
}

// Ones for `taps` of four, from `first` on.
VOXPRESS_INLINE S32s tap_ones(int64_t first, int64_t taps) {
  int32_t ones = 0;
  for (int64_t tap = first; tap < first + taps; ++tap) ones |= 1 << (8 * tap);
  return S32s{} + ones;
}

template <bool kOffset>
VOXPRESS_INLINE void add_taps(const Column& column, const S32s* weights, S32s ones, DepthwiseSums* sums) {
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    sums->products[g] = dot_lanes(sums->products[g], column.group[g], load<S32s>(weights + g));
    if constexpr (kOffset) sums->inputs[g] = dot_lanes(sums->inputs[g], column.group[g], ones);
  }
}

// Any kernel, any stride.
template <bool kPlain, bool kOffset>
void run_line(const DepthwiseLine& line, const BlockFinish& block) {
  const Conv2dShape& s = line.call->shape->conv;
  const FinishLanes lanes(*line.call);
  const Column outside = outside_column(*line.call);
  for (int64_t f = 0; f < conv2d_out_mel(s); ++f) {
    DepthwiseSums sums = start_sums(line);
    const S32s* weights = line.prepared + kGroups;
    for (int64_t df = 0; df < s.kernel_mel; ++df) {
      for (int64_t step = 0; step < line.plan->steps; ++step, weights += kGroups) {
        const Column column = load_column<kPlain>(line, step, f * s.stride_mel - s.pad_mel + df, outside);
        const S32s ones = tap_ones(0, least(kTapsTogether, s.kernel_frames - step * kTapsTogether));
        add_taps<kOffset>(column, weights, ones, &sums);
      }
    }
    write_depthwise<kPlain, kOffset>(line, block, lanes, line.first_output + f, sums);
  }
}

// 3x3 taps with stride 1, kLines lines: two of three columns are those of the output before. What is read again and
// again is copied, or each byte that is written would count as a change to it.
template <int kLines, bool kPlain, bool kOffset>
void run_lines_3(const DepthwiseLine& lines, const BlockFinish& finish) {
  const InputRow rows[kTapsTogether] = {lines.rows[0], lines.rows[1], lines.rows[2], lines.rows[3]};
  const Conv2dU8Call call = *lines.call;
  const DepthwiseLine line{&call, lines.plan, rows, lines.channel, lines.channels, lines.first_output, lines.prepared};
  const BlockFinish block = finish;
  const FinishLanes lanes(call);
  const DepthwiseSums start = start_sums(line);
  const Column outside = outside_column(call);
  const int64_t out_mel = conv2d_out_mel(call.shape->conv);
  const int64_t pad = call.shape->conv.pad_mel;
  Column first = load_column<kPlain>(line, 0, -pad, outside);
  Column second = load_column<kPlain>(line, 0, 1 - pad, outside);
  for (int64_t f = 0; f < out_mel; ++f) {
    const Column third = load_column<kPlain>(line, 0, f + 2 - pad, outside);
    VOXPRESS_UNROLL
    for (int j = 0; j < kLines; ++j) {
      DepthwiseSums sums = start;
      const S32s* weights = line.prepared + (1 + j * 3) * kGroups;
      const S32s ones = tap_ones(j, 3);
      add_taps<kOffset>(first, weights, ones, &sums);
      add_taps<kOffset>(second, weights + kGroups, ones, &sums);
      add_taps<kOffset>(third, weights + 2 * kGroups, ones, &sums);
      write_depthwise<kPlain, kOffset>(line, block, lanes, line.first_output + j * out_mel + f, sums);
    }
    first = second;
    second = third;
  }
}

using RunLines = void (*)(const DepthwiseLine& line, const BlockFinish& block);
struct LineRunners {
  RunLines one, together;
};

template <bool kPlain, bool kOffset>
LineRunners line_runners(const Conv2dShape& s) {
  if (!takes_lines_together(s)) return {run_line<kPlain, kOffset>, nullptr};
  return {run_lines_3<1, kPlain, kOffset>, run_lines_3<kLinesTogether, kPlain, kOffset>};
}

LineRunners line_runners(const Conv2dU8Call& call, int64_t channels) {
  const Conv2dShape& s = call.shape->conv;
  const bool plain = channels == kBytes && call.tensors->residual == nullptr && call.shape->output == Element::kU8;
  if (call.finish.offset != nullptr) return plain ? line_runners<true, true>(s) : line_runners<false, true>(s);
  return plain ? line_runners<true, false>(s) : line_runners<false, false>(s);
}

constexpr int64_t kMostKernelFrames = 64;

bool depthwise_takes(const Conv2dU8Shape& s) {
  return s.input == Element::kU8 && s.conv.groups == s.conv.in_channels && s.conv.groups == s.conv.out_channels &&
         s.conv.kernel_frames <= kMostKernelFrames;
}

int64_t depthwise_prepared_bytes(const Conv2dU8Shape& s) {
  const DepthwisePlan plan(s.conv, {});
  return plan.blocks * plan.block_bytes;
}

void depthwise_pack(const Conv2dU8Packing& packing) {
  const Conv2dShape& s = packing.shape->conv;
  const DepthwisePlan plan(s, {});
  const Range range = share_of(plan.blocks, packing.share);
  for (int64_t b = range.begin; b < range.end; ++b) {
    unsigned char* block = packing.prepared + b * plan.block_bytes;
    std::memset(block, 0, static_cast<size_t>(plan.block_bytes));
    auto* starts = reinterpret_cast<int32_t*>(block);
    auto* weights = reinterpret_cast<int8_t*>(block + kGroups * kBytes);
    for (int group = 0; group < kGroups; ++group) {
      for (int lane = 0; lane < kInts; ++lane) {
        const int64_t channel = b * kBytes + channel_at(group, lane);
        if (channel >= s.out_channels) continue;
        for (int64_t tap = 0; tap < s.kernel_frames * s.kernel_mel; ++tap) {
          int8_t value;
          decode_int8(s, *packing.weights, *packing.palette, channel, tap, 1, &value);
          const int64_t dt = tap / s.kernel_mel;
          const int64_t df = tap % s.kernel_mel;
          for (int64_t set = 0; set < plan.sets; ++set) {
            const int64_t vector =
                ((set * plan.columns + df) * plan.steps + (dt + set) / kTapsTogether) * kGroups + group;
            weights[(vector * kInts + lane) * kTapsTogether + (dt + set) % kTapsTogether] = value;
          }
          starts[group * kInts + lane] -= (packing.shape->in.zero - kGatheredFlip) * value;
        }
      }
    }
  }
}

int64_t depthwise_scratch_bytes(const Conv2dU8Shape&) { return 0; }

// The rows that output lines from `index` on read, from channel `channel` on. Behind the kernel's there are others,
// whose weights are zero.
void find_rows(const Conv2dU8Call& call, int64_t index, int64_t channel, int64_t count, const uint8_t* outside,
               InputRow* rows) {
  const Conv2dShape& s = call.shape->conv;
  const int64_t line_bytes = s.in_mel * s.in_channels;
  const int64_t first = index % conv2d_out_frames(s) * s.stride_frames - s.pad_frames;
  const uint8_t* utterance =
      static_cast<const uint8_t*>(call.tensors->input) + index / conv2d_out_frames(s) * s.in_frames * line_bytes;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t frame = first + j;
    const bool inside = frame >= 0 && frame < s.in_frames;
    rows[j] = inside ? InputRow{utterance + frame * line_bytes + channel, s.in_channels} : InputRow{outside, 0};
  }
}

void depthwise_run(const Conv2dU8Call& call) {
  const Conv2dShape& s = call.shape->conv;
  const DepthwisePlan plan(s, call.share);
  const int64_t out_frames = conv2d_out_frames(s);
  alignas(kBytes) uint8_t outside[kBytes];
  std::memset(outside, call.shape->in.zero, sizeof(outside));
  for (int64_t b = 0; b < plan.blocks; ++b) {
    const int64_t channels = least(kBytes, s.out_channels - b * kBytes);
    const BlockFinish block(call, b * kBytes, channels);
    const LineRunners run = line_runners(call, channels);
    const auto* prepared = reinterpret_cast<const S32s*>(call.prepared + b * plan.block_bytes);
    for (int64_t index = plan.lines.begin; index < plan.lines.end;) {
      InputRow rows[kMostKernelFrames + kTapsTogether];
      find_rows(call, index, b * kBytes, plan.steps * kTapsTogether, outside, rows);
      const DepthwiseLine line{&call, &plan, rows, b * kBytes, channels, index * conv2d_out_mel(s), prepared};
      // Of the same utterance.
      const bool together = run.together != nullptr && index + 1 < plan.lines.end && (index + 1) % out_frames != 0;
      (together ? run.together : run.one)(line, block);
      index += together ? kLinesTogether : 1;
    }
  }
}

}  // namespace
}  // namespace voxpress
