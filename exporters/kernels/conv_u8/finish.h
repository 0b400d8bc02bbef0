// From sums to outputs, as variants.h says, for the integer kernels of one ISA file.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv_u8/variants.h"

namespace voxpress {
namespace {

// What of a call is the same for all outputs, in registers.
struct FinishLanes {
  F32s residual_shift;
  F32s res_multiplier;
  U8s low;

  explicit FinishLanes(const Conv2dU8Call& call)
      : residual_shift(broadcast(call.finish.residual_shift)),
        res_multiplier(broadcast(call.finish.res_multiplier)),
        low(static_cast<uint8_t>(call.finish.low) - U8s{}) {}
};

VOXPRESS_INLINE F32s to_floats(S32s sums) { return __builtin_convertvector(sums, F32s); }
VOXPRESS_INLINE F32s to_floats(F32s sums) { return sums; }

// What products are added to.
VOXPRESS_INLINE F32s start_of(const FinishLanes& lanes, const float* bias) {
  return load<F32s>(bias) + lanes.residual_shift;
}

VOXPRESS_INLINE F32s relu(F32s value) {
  const F32s zero = {};
  return value < zero ? zero : value;
}

// t and kInts bytes of the residual.
VOXPRESS_INLINE F32s add_residual(const FinishLanes& lanes, const uint8_t* residual, F32s t) {
  return fused(to_floats(widen_bytes(residual)), lanes.res_multiplier, t);
}

// kCount outputs side by side along mel, kInts channels of each from `channel` on; t as variants.h has it after its
// first line. `at` is where the first of them lies in output and residual. Only the first `count` exist.
struct OutputPlace {
  int64_t at;
  int64_t channel;
  int64_t channels;  // from there to the end of the channel group
  int64_t count;
};

template <int kCount>
VOXPRESS_INLINE void add_residuals(const Conv2dU8Call& call, const FinishLanes& lanes, int64_t at, F32s (&t)[kCount]) {
  const int64_t channels = call.shape->conv.out_channels;
  if (call.shape->residual == Element::kF32) {
    const float* residual = static_cast<const float*>(call.tensors->residual) + at;
    VOXPRESS_UNROLL
    for (int j = 0; j < kCount; ++j) t[j] = fused(load<F32s>(residual + j * channels), lanes.res_multiplier, t[j]);
    return;
  }
  const uint8_t* residual = static_cast<const uint8_t*>(call.tensors->residual) + at;
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) t[j] = add_residual(lanes, residual + j * channels, t[j]);
}

// All of them exist, and all channels. `windows` is null where they are in t already.
template <int kCount>
VOXPRESS_INLINE void finish_whole(const Conv2dU8Call& call, const FinishLanes& lanes, const OutputPlace& place,
                                  const float* windows, F32s (&t)[kCount]) {
  const int64_t channels = call.shape->conv.out_channels;
  if (windows != nullptr && call.finish.offset != nullptr) {
    const F32s offset = load<F32s>(call.finish.offset + place.channel);
    VOXPRESS_UNROLL
    for (int j = 0; j < kCount; ++j) t[j] = fused(broadcast(windows[j]), offset, t[j]);
  }
  if (call.tensors->residual != nullptr) add_residuals(call, lanes, place.at, t);
  if (call.shape->output == Element::kU8) {
    store_rounded(t, lanes.low, static_cast<uint8_t*>(call.tensors->output) + place.at, channels);
    return;
  }
  float* output = static_cast<float*>(call.tensors->output) + place.at;
  VOXPRESS_UNROLL
  for (int j = 0; j < kCount; ++j) store(output + j * channels, call.shape->conv.relu ? relu(t[j]) : t[j]);
}

// Some lie outside of the map or behind the last channel: each alone, by way of buffers that have room for all.
template <int kCount>
void finish_ragged(const Conv2dU8Call& call, const FinishLanes& lanes, const OutputPlace& place, const float* windows,
                   const F32s* t) {
  const int64_t channels = call.shape->conv.out_channels;
  const int64_t count = least(kCount, place.count);
  const auto there = static_cast<size_t>(least(kInts, place.channels));
  Conv2dU8Shape shape = *call.shape;
  shape.conv.out_channels = kInts;
  alignas(kBytes) unsigned char residual[kCount * kInts * sizeof(float)] = {};
  alignas(kBytes) unsigned char output[kCount * kInts * sizeof(float)];
  const size_t residual_size = shape.residual == Element::kF32 ? sizeof(float) : 1;
  const size_t output_size = shape.output == Element::kF32 ? sizeof(float) : 1;
  Conv2dU8Tensors tensors{nullptr, nullptr, output};
  if (call.tensors->residual != nullptr) {
    tensors.residual = residual;
    const auto* source = static_cast<const unsigned char*>(call.tensors->residual);
    for (int64_t j = 0; j < count; ++j) {
      std::memcpy(residual + static_cast<size_t>(j * kInts) * residual_size,
                  source + static_cast<size_t>(place.at + j * channels) * residual_size, there * residual_size);
    }
  }
  Conv2dU8Call part = call;
  part.shape = &shape;
  part.tensors = &tensors;
  F32s values[kCount];
  for (int j = 0; j < kCount; ++j) values[j] = t[j];
  finish_whole<kCount>(part, lanes, {0, place.channel, kInts, kCount}, windows, values);
  auto* target = static_cast<unsigned char*>(call.tensors->output);
  for (int64_t j = 0; j < count; ++j) {
    std::memcpy(target + static_cast<size_t>(place.at + j * channels) * output_size,
                output + static_cast<size_t>(j * kInts) * output_size, there * output_size);
  }
}

template <int kCount>
VOXPRESS_INLINE void finish(const Conv2dU8Call& call, const FinishLanes& lanes, const OutputPlace& place,
                            const float* windows, F32s (&t)[kCount]) {
  if (place.count >= kCount && place.channels >= kInts) {
    finish_whole<kCount>(call, lanes, place, windows, t);
  } else {
    F32s values[kCount];  // not t itself, which would then have to lie in memory
    VOXPRESS_UNROLL
    for (int j = 0; j < kCount; ++j) values[j] = t[j];
    finish_ragged<kCount>(call, lanes, place, windows, values);
  }
}

// Whole panels of positions that all exist, in bytes: nearly all of them. They are finished while their sums are in
// registers.
struct PlainRows {
  const float* multiplier;
  const float* offset;   // null without windows
  const float* windows;  // of the positions
  const float* bias;
  const uint8_t* residual;
  uint8_t* output;
  int64_t row_bytes;  // from one position to the next, in output and residual
};

bool is_plain(const Conv2dU8Call& call) {
  return call.shape->output == Element::kU8 &&
         (call.tensors->residual == nullptr || call.shape->residual == Element::kU8);
}

PlainRows plain_rows(const Conv2dU8Call& call, const float* windows, int64_t position, int64_t channel) {
  const int64_t channels = call.shape->conv.out_channels;
  const int64_t at = position * channels + channel;
  const auto* residual = static_cast<const uint8_t*>(call.tensors->residual);
  return {call.finish.multiplier + channel,
          call.finish.offset == nullptr ? nullptr : call.finish.offset + channel,
          windows,
          call.finish.bias + channel,
          residual == nullptr ? nullptr : residual + at,
          static_cast<uint8_t*>(call.tensors->output) + at,
          channels};
}

template <bool kOffset, bool kResidual, typename Sums, int kR>
VOXPRESS_INLINE void finish_rows(const FinishLanes& lanes, const PlainRows& rows, const Sums (&sum)[kR][kVectors]) {
  static_assert(kR % kPanelRows == 0, "rows are rounded kPanelRows at a time");
  const uint8_t* residual = rows.residual;
  uint8_t* output = rows.output;
  VOXPRESS_UNROLL
  for (int m = 0; m < kR; m += kPanelRows) {
    F32s t[4];
    VOXPRESS_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int row = j / kVectors;
      const int lane = j % kVectors * kInts;
      const F32s start = start_of(lanes, rows.bias + lane);
      t[j] = fused(to_floats(sum[m + row][j % kVectors]), load<F32s>(rows.multiplier + lane), start);
      if constexpr (kOffset) t[j] = fused(broadcast(rows.windows[m + row]), load<F32s>(rows.offset + lane), t[j]);
      if constexpr (kResidual) t[j] = add_residual(lanes, residual + row * rows.row_bytes + lane, t[j]);
    }
    store_panel_rows(t, lanes.low, output, rows.row_bytes);
    if constexpr (kResidual) residual += kPanelRows * rows.row_bytes;
    output += kPanelRows * rows.row_bytes;
  }
}

}  // namespace
}  // namespace voxpress
