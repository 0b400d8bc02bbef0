// Depthwise convolution of bytes: every channel has its own taps, so channels are the vector. Four taps, one below the
// other, are interleaved byte by byte and multiplied at once.
//
// Interleaving leaves channels in an order of its own: lane e of group q of each 16 bytes is channel 4 * q + e of them.
// Rounding back to bytes undoes it.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv_u8/finish.h"
#include "conv_u8/position.h"
#include "conv_u8/weights.h"

namespace voxpress {
namespace {

constexpr int kTapsTogether = 4;
constexpr int kGroups = 4;  // of channels, kInts each, that make up a vector of bytes

// Column of taps -> kGroups vectors.
struct Column {
  S32s group[kGroups];
};

struct DepthwisePlan {
  int64_t steps;        // of kTapsTogether taps in a column
  int64_t columns;      // kernel_mel
  int64_t blocks;       // of kBytes channels
  int64_t block_bytes;  // prepared: starts [kGroups][kInts], then [columns][steps][kGroups] vectors of weights
  Range lines;          // of the output

  DepthwisePlan(const Conv2dShape& s, const Share& share) {
    steps = ceil_div(s.kernel_frames, kTapsTogether);
    columns = s.kernel_mel;
    blocks = ceil_div(s.out_channels, kBytes);
    block_bytes = (1 + columns * steps) * kGroups * kBytes;
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
  return {{interleave_pairs_low(low01, low23), interleave_pairs_high(low01, low23),
           interleave_pairs_low(high01, high23), interleave_pairs_high(high01, high23)}};
}

// One block of channels in one line of the output.
struct DepthwiseLine {
  const Conv2dU8Call* call;
  const DepthwisePlan* plan;
  const uint8_t* const* rows;  // of the input, one for each kernel frame and more to make steps whole; null: outside
  int64_t channel;
  int64_t channels;  // of the block that exist
  int64_t first_output;
  const S32s* prepared;
};

// Parameters of a block's outputs, in the order of its lanes.
struct BlockFinish {
  F32s multiplier[kGroups];
  F32s offset[kGroups];
  F32s bias[kGroups];

  BlockFinish(const Conv2dU8Call& call, int64_t channel, int64_t channels) {
    for (int group = 0; group < kGroups; ++group) {
      float lanes[3][kInts] = {};
      for (int lane = 0; lane < kInts; ++lane) {
        const int64_t c = channel_at(group, lane);
        if (c >= channels) continue;
        lanes[0][lane] = call.finish.multiplier[channel + c];
        lanes[1][lane] = call.finish.offset == nullptr ? 0.0f : call.finish.offset[channel + c];
        lanes[2][lane] = call.finish.bias[channel + c];
      }
      multiplier[group] = load<F32s>(lanes[0]);
      offset[group] = load<F32s>(lanes[1]);
      bias[group] = load<F32s>(lanes[2]);
    }
  }
};

VOXPRESS_INLINE Column load_column(const DepthwiseLine& line, int64_t step, int64_t mel, U8s zero) {
  const Conv2dShape& s = line.call->shape->conv;
  U8s taps[kTapsTogether];
  VOXPRESS_UNROLL
  for (int j = 0; j < kTapsTogether; ++j) {
    const uint8_t* row = line.rows[step * kTapsTogether + j];
    taps[j] = zero;
    if (row == nullptr || mel < 0 || mel >= s.in_mel) continue;
    const uint8_t* source = row + mel * s.in_channels + line.channel;
    if (line.channels >= kBytes) {
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

VOXPRESS_INLINE void add_column(const Column& column, const S32s* weights, S32s (&sum)[kGroups]) {
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) sum[g] = dot_lanes(sum[g], column.group[g], load<S32s>(weights + g));
}

// Sums of one output, and of its window where they count.
struct DepthwiseSums {
  S32s products[kGroups];
  S32s inputs[kGroups];
};

void write_depthwise_slowly(const DepthwiseLine& line, int64_t output, const F32s (&t)[kGroups]) {
  // Bias and what follows, channel by channel in their own order.
  float in_order[kBytes];
  for (int g = 0; g < kGroups; ++g) {
    float lanes[kInts];
    store(lanes, t[g]);
    for (int lane = 0; lane < kInts; ++lane) in_order[channel_at(g, lane)] = lanes[lane];
  }
  Conv2dU8Call rest = *line.call;
  rest.finish.offset = nullptr;  // has been added
  const FinishLanes lanes(rest);
  for (int64_t c = 0; c < line.channels; c += kInts) {
    F32s pixels[4] = {load<F32s>(in_order + c)};
    finish_ragged<4>(
        rest, lanes,
        {output * rest.shape->conv.out_channels + line.channel + c, line.channel + c, line.channels - c, 1}, nullptr,
        pixels);
  }
}

VOXPRESS_INLINE void write_depthwise(const DepthwiseLine& line, const BlockFinish& block, const FinishLanes& lanes,
                                     int64_t output, const DepthwiseSums& sums) {
  const Conv2dU8Call& call = *line.call;
  F32s t[kGroups];
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    t[g] = __builtin_convertvector(sums.products[g], F32s) * block.multiplier[g];
  }
  if (call.finish.offset != nullptr) {
    VOXPRESS_UNROLL
    for (int g = 0; g < kGroups; ++g) t[g] = t[g] + __builtin_convertvector(sums.inputs[g], F32s) * block.offset[g];
  }
  if (line.channels < kBytes || call.tensors->residual != nullptr || call.shape->output != Element::kU8) {
    write_depthwise_slowly(line, output, t);
    return;
  }
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) t[g] = t[g] + block.bias[g];
  auto* target = static_cast<uint8_t*>(call.tensors->output) + output * call.shape->conv.out_channels + line.channel;
  store(target, round_together(t, lanes.low));
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

// Ones for the taps that there are, in the kernel frames of a step.
VOXPRESS_INLINE S32s tap_ones(const Conv2dShape& s, int64_t step) {
  const int64_t taps = least(kTapsTogether, s.kernel_frames - step * kTapsTogether);
  return S32s{} + (taps == kTapsTogether ? 0x01010101 : (1 << (8 * taps)) / 255);
}

VOXPRESS_INLINE void add_inputs(const Column& column, S32s ones, DepthwiseSums* sums) {
  VOXPRESS_UNROLL
  for (int g = 0; g < kGroups; ++g) sums->inputs[g] = dot_lanes(sums->inputs[g], column.group[g], ones);
}

// Any kernel, any stride.
void run_line(const DepthwiseLine& line, const BlockFinish& block) {
  const Conv2dU8Call& call = *line.call;
  const Conv2dShape& s = call.shape->conv;
  const FinishLanes lanes(call);
  const U8s zero = U8s{} + static_cast<uint8_t>(call.shape->in.zero ^ kGatheredFlip);
  for (int64_t f = 0; f < conv2d_out_mel(s); ++f) {
    DepthwiseSums sums = start_sums(line);
    const S32s* weights = line.prepared + kGroups;
    for (int64_t df = 0; df < s.kernel_mel; ++df) {
      for (int64_t step = 0; step < line.plan->steps; ++step, weights += kGroups) {
        const Column column = load_column(line, step, f * s.stride_mel - s.pad_mel + df, zero);
        add_column(column, weights, sums.products);
        if (call.finish.offset != nullptr) add_inputs(column, tap_ones(s, step), &sums);
      }
    }
    write_depthwise(line, block, lanes, line.first_output + f, sums);
  }
}

// Three mel taps with stride 1 and at most four frame taps: two of three columns are those of the output before.
void run_line_3(const DepthwiseLine& line, const BlockFinish& block) {
  const Conv2dU8Call& call = *line.call;
  const Conv2dShape& s = call.shape->conv;
  const FinishLanes lanes(call);
  const U8s zero = U8s{} + static_cast<uint8_t>(call.shape->in.zero ^ kGatheredFlip);
  const S32s* weights = line.prepared + kGroups;
  const S32s ones = tap_ones(s, 0);
  Column first = load_column(line, 0, -s.pad_mel, zero);
  Column second = load_column(line, 0, 1 - s.pad_mel, zero);
  for (int64_t f = 0; f < conv2d_out_mel(s); ++f) {
    const Column third = load_column(line, 0, f + 2 - s.pad_mel, zero);
    DepthwiseSums sums = start_sums(line);
    add_column(first, weights, sums.products);
    add_column(second, weights + kGroups, sums.products);
    add_column(third, weights + 2 * kGroups, sums.products);
    if (call.finish.offset != nullptr) {
      add_inputs(first, ones, &sums);
      add_inputs(second, ones, &sums);
      add_inputs(third, ones, &sums);
    }
    write_depthwise(line, block, lanes, line.first_output + f, sums);
    first = second;
    second = third;
  }
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
          const int64_t vector = (df * plan.steps + dt / kTapsTogether) * kGroups + group;
          weights[(vector * kInts + lane) * kTapsTogether + dt % kTapsTogether] = value;
          starts[group * kInts + lane] -= (packing.shape->in.zero - kGatheredFlip) * value;
        }
      }
    }
  }
}

int64_t depthwise_scratch_bytes(const Conv2dU8Shape&) { return 0; }

void depthwise_run(const Conv2dU8Call& call) {
  const Conv2dShape& s = call.shape->conv;
  const DepthwisePlan plan(s, call.share);
  const auto* input = static_cast<const uint8_t*>(call.tensors->input);
  const bool three = s.kernel_mel == 3 && s.stride_mel == 1 && plan.steps == 1;
  for (int64_t b = 0; b < plan.blocks; ++b) {
    const int64_t channels = least(kBytes, s.out_channels - b * kBytes);
    const BlockFinish block(call, b * kBytes, channels);
    for (int64_t index = plan.lines.begin; index < plan.lines.end; ++index) {
      const int64_t n = index / conv2d_out_frames(s);
      const int64_t first = index % conv2d_out_frames(s) * s.stride_frames - s.pad_frames;
      const uint8_t* rows[kMostKernelFrames + kTapsTogether] = {};
      for (int64_t dt = 0; dt < s.kernel_frames; ++dt) {
        const int64_t frame = first + dt;
        const bool inside = frame >= 0 && frame < s.in_frames;
        rows[dt] = inside ? input + (n * s.in_frames + frame) * s.in_mel * s.in_channels : nullptr;
      }
      const DepthwiseLine line{&call,
                               &plan,
                               rows,
                               b * kBytes,
                               channels,
                               index * conv2d_out_mel(s),
                               reinterpret_cast<const S32s*>(call.prepared + b * plan.block_bytes)};
      if (three) {
        run_line_3(line, block);
      } else {
        run_line(line, block);
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
