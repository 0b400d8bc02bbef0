// Convolution of bytes in any geometry as a matrix product: see conv/direct.h. What lies outside of the input reads as
// the zero point, whose products are in the start of each sum.
#pragma once

#include "conv/position.h"
#include "conv_u8/decode.h"
#include "conv_u8/finish.h"
#include "conv_u8/multiply.h"
#include "conv_u8/weights.h"
#include "conv_u8/window_sums.h"

namespace voxpress {
namespace {

constexpr int64_t kGatherBudgetBytes = 128 << 10;     // of gathered rows at a time
constexpr int64_t kSlotBytes = kBytes * kInputBytes;  // of kBytes inputs of a row
constexpr bool kBytesAreInputs = kInputBytes == 1 && kGatheredFlip == 0;

struct DirectPlan {
  int64_t taps;
  int64_t depth;   // input channels of a group
  bool pointwise;  // the rows are the pixels of the input
  int64_t row_bytes;
  int64_t steps;
  int64_t slots;
  int64_t outputs;  // output channels of a group
  int64_t panels;   // of a group
  int64_t panel_bytes;
  Range range;  // of positions
  int64_t rows;
  int64_t group_bytes;  // of a group of positions
  int64_t groups_per_block;

  DirectPlan(const Conv2dShape& s, const Share& share) {
    taps = s.kernel_frames * s.kernel_mel;
    depth = s.in_channels / s.groups;
    pointwise =
        taps == 1 && s.groups == 1 && s.stride_frames == 1 && s.stride_mel == 1 && s.pad_frames == 0 && s.pad_mel == 0;
    row_bytes = taps * depth;
    steps = ceil_div(row_bytes, kDepth);
    slots = ceil_div(row_bytes, kBytes);
    outputs = s.out_channels / s.groups;
    panels = ceil_div(outputs, kPanel);
    panel_bytes = kPanel * static_cast<int64_t>(sizeof(int32_t)) + steps * kStepBytes;
    range = share_of(s.batch * conv2d_out_frames(s) * conv2d_out_mel(s), share);
    const int64_t positions = most(1, range.end - range.begin);
    rows = rows_per_group(positions, kRows);
    group_bytes = rows * slots * kSlotBytes;
    groups_per_block = most(1, least(kGatherBudgetBytes / group_bytes, ceil_div(positions, rows)));
  }
};

// Large enough for every share of the positions.
struct DirectScratch {
  uint8_t* gathered;
  unsigned char* windows;
  int64_t bytes = 0;

  DirectScratch(const Conv2dShape& s, unsigned char* start) {
    const DirectPlan plan(s, {});
    const int64_t gathered_bytes = most(kGatherBudgetBytes, round_up(plan.slots * kRows * kSlotBytes, 64));
    gathered = start;
    windows = start + gathered_bytes;
    bytes = gathered_bytes + WindowSums::scratch_bytes(s);
  }
};

// A row of a group, written from front to back: its inputs lie in slots of kSlotBytes, `step` bytes apart.
class RowWriter {
 public:
  RowWriter(uint8_t* slot, int64_t step) : slot_(slot), step_(step) {}

  void copy(const uint8_t* source, int64_t count) {
    while (count > 0) {
      const int64_t part = least(kBytes - at_, count);
      if (part == kBytes) {
        store_gathered(slot_, load<U8s>(source));
        slot_ += step_;
      } else if (part == kBytes / 2) {  // of a size that is known, as the next one is not
        std::memcpy(slot_ + at_, source, kBytes / 2);
        advance(part);
      } else {
        std::memcpy(slot_ + at_, source, static_cast<size_t>(part));
        advance(part);
      }
      source += part;
      count -= part;
    }
  }

  void fill(uint8_t value, int64_t count) {
    while (count > 0) {
      const int64_t part = least(kBytes - at_, count);
      std::memset(slot_ + at_, value, static_cast<size_t>(part));
      count -= part;
      advance(part);
    }
  }

  // Behind the last byte.
  void end() {
    if (!kBytesAreInputs && at_ > 0) store_gathered(slot_, load<U8s>(slot_));
  }

 private:
  // A slot collects bytes; when it is full they become inputs.
  void advance(int64_t part) {
    at_ += part;
    if (at_ < kBytes) return;
    end();
    at_ = 0;
    slot_ += step_;
  }

  uint8_t* slot_;
  int64_t step_;
  int64_t at_ = 0;
};

// Gathers the inputs of one position; `input` is that of the channel group.
void gather_row(const Conv2dU8Call& call, const DirectPlan& plan, const uint8_t* input, const Position& position,
                RowWriter* row) {
  const Conv2dShape& s = call.shape->conv;
  const auto zero = static_cast<uint8_t>(call.shape->in.zero);
  const int64_t mel0 = position.first_mel(s);
  const int64_t frame0 = position.first_frame(s);
  const uint8_t* utterance = input + position.n() * s.in_frames * s.in_mel * s.in_channels;
  // Without groups, the taps of one frame lie side by side in the input.
  const bool side_by_side = s.groups == 1 && mel0 >= 0 && mel0 + s.kernel_mel <= s.in_mel;
  for (int64_t frame = frame0; frame < frame0 + s.kernel_frames; ++frame) {
    if (frame < 0 || frame >= s.in_frames) {
      row->fill(zero, s.kernel_mel * plan.depth);
      continue;
    }
    const uint8_t* line_input = utterance + frame * s.in_mel * s.in_channels;
    if (side_by_side) {
      row->copy(line_input + mel0 * s.in_channels, s.kernel_mel * plan.depth);
      continue;
    }
    for (int64_t mel = mel0; mel < mel0 + s.kernel_mel; ++mel) {
      if (mel >= 0 && mel < s.in_mel) {
        row->copy(line_input + mel * s.in_channels, plan.depth);
      } else {
        row->fill(zero, plan.depth);
      }
    }
  }
}

// Groups whose rows all exist and fill their slots, or half of the only one: a matrix copied in blocks.
void gather_matrix(const DirectPlan& plan, const uint8_t* input, int64_t groups, uint8_t* target) {
  for (int64_t g = 0; g < groups; ++g, input += plan.rows * plan.depth, target += plan.group_bytes) {
    if (plan.depth < kBytes) {
      for (int64_t m = 0; m < plan.rows; ++m) {
        std::memcpy(target + m * kSlotBytes, input + m * plan.depth, kBytes / 2);
      }
      continue;
    }
    for (int64_t slot = 0; slot < plan.slots; ++slot) {
      uint8_t* slots = target + slot * plan.rows * kSlotBytes;
      for (int64_t m = 0; m < plan.rows; ++m) {
        store_gathered(slots + m * kSlotBytes, load<U8s>(input + m * plan.depth + slot * kBytes));
      }
    }
  }
}

void gather(const Conv2dU8Call& call, const DirectPlan& plan, int64_t channel_group, int64_t first, int64_t groups,
            const DirectScratch& scratch) {
  const bool fills = plan.depth % kBytes == 0 || (kBytesAreInputs && plan.depth == kBytes / 2);
  if (plan.pointwise && fills && first + groups * plan.rows <= plan.range.end) {
    const auto* matrix = static_cast<const uint8_t*>(call.tensors->input) + first * plan.depth;
    return gather_matrix(plan, matrix, groups, scratch.gathered);
  }
  const uint8_t* input = static_cast<const uint8_t*>(call.tensors->input) + channel_group * plan.depth;
  Position position(call.shape->conv, first);
  for (int64_t g = 0; g < groups; ++g) {
    uint8_t* target = scratch.gathered + g * plan.group_bytes;
    for (int64_t m = 0; m < plan.rows; ++m, ++first, target += kSlotBytes) {
      // Rows behind the last position are multiplied like the others, and not written: any position does for them.
      RowWriter row(target, plan.rows * kSlotBytes);
      if (plan.pointwise) {
        row.copy(input + least(first, plan.range.end - 1) * plan.depth, plan.depth);
      } else {
        gather_row(call, plan, input, position, &row);
        if (first + 1 < plan.range.end) position.advance();
      }
      row.fill(static_cast<uint8_t>(call.shape->in.zero), plan.steps * kDepth - plan.row_bytes);
      row.end();
    }
  }
}

constexpr int kTogether = 4;  // positions that are written at a time

template <int kR>
struct MultiplyGroup {
  __attribute__((noinline)) static void run(const uint8_t* inputs, const unsigned char* panel, int64_t steps,
                                            int32_t* sums) {
    multiply<kR, kBytes>(inputs, reinterpret_cast<const int8_t*>(panel) + sizeof(int32_t) * kPanel, steps,
                         reinterpret_cast<const int32_t*>(panel), sums);
  }
};

// Whole groups and panels, see PlainRows.
template <bool kOffset, bool kResidual>
__attribute__((noinline)) void multiply_plain(const FinishLanes& lanes, const uint8_t* inputs,
                                              const unsigned char* panel, int64_t steps, const PlainRows& rows) {
  S32s sum[kRows][kVectors];
  multiply<kRows, kBytes>(inputs, reinterpret_cast<const int8_t*>(panel) + sizeof(int32_t) * kPanel, steps,
                          reinterpret_cast<const int32_t*>(panel), sum);
  finish_rows<kOffset, kResidual>(lanes, rows, sum);
}

using MultiplyPlain = decltype(&multiply_plain<false, false>);

MultiplyPlain plain_multiply(const Conv2dU8Call& call) {
  const bool residual = call.tensors->residual != nullptr;
  if (!is_plain(call)) return nullptr;
  if (call.finish.offset != nullptr) return residual ? multiply_plain<true, true> : multiply_plain<true, false>;
  return residual ? multiply_plain<false, true> : multiply_plain<false, false>;
}

// Sums of positions [..][kPanel] and where they belong.
struct SummedPositions {
  const int32_t* sums;
  const float* windows;  // by position
  int64_t first;
  int64_t count;
  int64_t first_channel;
  int64_t channels;
};

// kCount positions from m on, kInts channels of each; only the first of them may exist.
template <int kCount>
VOXPRESS_INLINE void write_some(const Conv2dU8Call& call, const FinishLanes& lanes, const SummedPositions& summed,
                                F32s multiplier, F32s start, int64_t m, int v) {
  const int64_t channel = summed.first_channel + v * kInts;
  F32s t[kCount];
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) {
    t[j] = fused(to_floats(load<S32s>(summed.sums + (m + j) * kPanel + v * kInts)), multiplier, start);
  }
  finish<kCount>(call, lanes,
                 {(summed.first + m) * call.shape->conv.out_channels + channel, channel, summed.channels - v * kInts,
                  summed.count - m},
                 summed.windows + summed.first + m, t);
}

void write_positions(const Conv2dU8Call& call, const SummedPositions& summed) {
  const FinishLanes lanes(call);
  for (int v = 0; v < kVectors && v * kInts < summed.channels; ++v) {
    const F32s multiplier = load<F32s>(call.finish.multiplier + summed.first_channel + v * kInts);
    const F32s start = start_of(lanes, call.finish.bias + summed.first_channel + v * kInts);
    int64_t m = 0;
    for (; m + kTogether <= summed.count; m += kTogether) {
      write_some<kTogether>(call, lanes, summed, multiplier, start, m, v);
    }
    for (; m < summed.count; m += 2) write_some<2>(call, lanes, summed, multiplier, start, m, v);
  }
}

bool direct_takes(const Conv2dU8Shape& s) { return s.input == Element::kU8; }

// [groups][panels] of starts and weights.
int64_t direct_prepared_bytes(const Conv2dU8Shape& s) {
  const DirectPlan plan(s.conv, {});
  return s.conv.groups * plan.panels * plan.panel_bytes;
}

void direct_pack(const Conv2dU8Packing& packing) {
  const Conv2dShape& s = packing.shape->conv;
  const DirectPlan plan(s, {});
  const Range range = share_of(s.groups * plan.panels, packing.share);
  for (int64_t p = range.begin; p < range.end; ++p) {
    unsigned char* panel = packing.prepared + p * plan.panel_bytes;
    std::memset(panel, 0, static_cast<size_t>(plan.panel_bytes));
    auto* starts = reinterpret_cast<int32_t*>(panel);
    auto* weights = reinterpret_cast<int8_t*>(panel) + sizeof(int32_t) * kPanel;
    const int64_t first = p % plan.panels * kPanel;
    for (int64_t j = 0; j < least(kPanel, plan.outputs - first); ++j) {
      const int64_t o = p / plan.panels * plan.outputs + first + j;
      for (int64_t k0 = 0; k0 < plan.row_bytes; k0 += kBytes) {
        alignas(kBytes) int8_t values[kBytes] = {};
        const int64_t count = least(kBytes, plan.row_bytes - k0);
        decode(s, *packing.weights, *packing.palette, o, k0, count, values);
        int8_t* target = weights + (k0 / kDepth * kPanel + j) * kDepth;
        for (int64_t k = 0; k < count; k += kDepth, target += kStepBytes) std::memcpy(target, values + k, kDepth);
      }
    }
    add_weights(weights, plan.steps, -(packing.shape->in.zero - kGatheredFlip), starts);
    arrange_weights(weights, plan.steps);
  }
}

int64_t direct_scratch_bytes(const Conv2dU8Shape& s) { return DirectScratch(s.conv, nullptr).bytes; }

void direct_run(const Conv2dU8Call& call) {
  const Conv2dShape& s = call.shape->conv;
  const DirectPlan plan(s, call.share);
  const DirectScratch scratch(s, call.scratch);
  const int64_t block = plan.groups_per_block * plan.rows;
  WindowSums windows(s, scratch.windows);
  const FinishLanes lanes(call);
  const MultiplyPlain plain = plain_multiply(call);
  for (int64_t group = 0; group < s.groups; ++group) {
    if (call.finish.offset != nullptr) windows.begin(call, group, plan.range.begin);
    for (int64_t first = plan.range.begin; first < plan.range.end; first += block) {
      const int64_t groups = least(plan.groups_per_block, ceil_div(plan.range.end - first, plan.rows));
      gather(call, plan, group, first, groups, scratch);
      if (call.finish.offset != nullptr) windows.reach(least(first + groups * plan.rows, plan.range.end));
      for (int64_t p = 0; p < plan.panels; ++p) {
        const unsigned char* panel = call.prepared + (group * plan.panels + p) * plan.panel_bytes;
        const int64_t channel = group * plan.outputs + p * kPanel;
        const int64_t channels = least(kPanel, plan.outputs - p * kPanel);
        for (int64_t g = 0; g < groups; ++g) {
          const uint8_t* inputs = scratch.gathered + g * plan.group_bytes;
          const int64_t position = first + g * plan.rows;
          const int64_t count = least(plan.rows, plan.range.end - position);
          if (plain != nullptr && count == kRows && channels == kPanel) {
            plain(lanes, inputs, panel, plan.steps, plain_rows(call, windows.windows() + position, position, channel));
            continue;
          }
          alignas(kBytes) int32_t sums[(kRows + 1) * kPanel];
          WithSteppedRows<MultiplyGroup, kRows>::run(plan.rows, inputs, panel, plan.steps, sums);
          std::memset(sums + plan.rows * kPanel, 0, sizeof(int32_t) * kPanel);  // no sums, but may be converted
          write_positions(call, {sums, windows.windows(), position, count, channel, channels});
        }
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
