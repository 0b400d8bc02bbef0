// Depthwise convolution: every channel has its own taps, so channels are the vector and kStep of them accumulate in
// registers while the taps go by.
#pragma once

#include "conv/panel.h"
#include "conv/vector.h"

namespace voxpress {
namespace {

constexpr int kStepVectors = 4;
constexpr int kStep = kStepVectors * kLanes;  // channels of a panel: [taps][kStep]

struct DepthwisePanel {
  int64_t first_channel;
  int64_t channels;
  const float* weights;
};

// Where the window of one output position begins in the input; may lie outside.
struct Window {
  int64_t index;  // of the position, over [batch, frames, mel] of the output
  int64_t first_frame;
  int64_t first_mel;
  const float* utterance;
};

template <bool kWhole>
VOXPRESS_INLINE void run_window(const Conv2dCall& call, const DepthwisePanel& panel, const Window& at) {
  const Conv2dShape& s = *call.shape;
  Lanes sum[kStepVectors] = {};
  const int64_t frame_end = least(s.kernel_frames, s.in_frames - at.first_frame);
  const int64_t mel_begin = most(0, -at.first_mel);
  const int64_t mel_end = least(s.kernel_mel, s.in_mel - at.first_mel);
  for (int64_t dt = most(0, -at.first_frame); dt < frame_end; ++dt) {
    for (int64_t df = mel_begin; df < mel_end; ++df) {
      const float* x =
          at.utterance + ((at.first_frame + dt) * s.in_mel + at.first_mel + df) * s.in_channels + panel.first_channel;
      const float* w = panel.weights + (dt * s.kernel_mel + df) * kStep;
      VOXPRESS_UNROLL
      for (int v = 0; v < kStepVectors; ++v) {
        const int lane = v * kLanes;
        sum[v] += (kWhole ? load(x + lane) : load_first(x + lane, panel.channels - lane)) * load(w + lane);
      }
    }
  }
  const int64_t offset = at.index * s.out_channels + panel.first_channel;
  VOXPRESS_UNROLL
  for (int v = 0; v < kStepVectors; ++v) {
    const int lane = v * kLanes;
    finish(call, panel.first_channel + lane, offset + lane, kWhole ? kLanes : panel.channels - lane, sum[v]);
  }
}

void run_channels(const Conv2dCall& call, const DepthwisePanel& panel) {
  const Conv2dShape& s = *call.shape;
  const int64_t out_frames = conv2d_out_frames(s);
  const int64_t out_mel = conv2d_out_mel(s);
  const Range range = share_of(s.batch * out_frames * out_mel, call.share);
  for (int64_t index = range.begin; index < range.end; ++index) {
    const int64_t line = index / out_mel;
    const float* utterance = call.tensors->input + line / out_frames * s.in_frames * s.in_mel * s.in_channels;
    const Window at{index, line % out_frames * s.stride_frames - s.pad_frames,
                    index % out_mel * s.stride_mel - s.pad_mel, utterance};
    if (panel.channels == kStep) {
      run_window<true>(call, panel, at);
    } else {
      run_window<false>(call, panel, at);
    }
  }
}

bool depthwise_takes(const Conv2dShape& s) {
  return s.groups == s.in_channels && s.groups == s.out_channels && fills_vectors(s.out_channels);
}

int64_t depthwise_panel_floats(const Conv2dShape& s) { return s.kernel_frames * s.kernel_mel * kStep; }

int64_t depthwise_prepared_floats(const Conv2dShape& s) {
  return ceil_div(s.out_channels, kStep) * depthwise_panel_floats(s);
}

DepthwisePanel depthwise_panel(const Conv2dShape& s, int64_t first_channel, const float* weights) {
  return {first_channel, least(kStep, s.out_channels - first_channel), weights};
}

void fill_depthwise(const Conv2dShape& s, const Conv2dWeights& weights, const Palette& palette, int64_t first_channel,
                    float* out) {
  const int64_t rows = least(kStep, s.out_channels - first_channel);
  fill_panel(s, weights, palette, {s.kernel_frames * s.kernel_mel, first_channel, rows, kStep}, out);
}

void depthwise_pack(const Conv2dShape& s, const Conv2dWeights& weights, float* prepared) {
  Palette palette;
  load_palette(s, weights, &palette);
  for (int64_t channel = 0; channel < s.out_channels; channel += kStep, prepared += depthwise_panel_floats(s)) {
    fill_depthwise(s, weights, palette, channel, prepared);
  }
}

int64_t depthwise_scratch_bytes(const Conv2dShape&) { return 0; }

void depthwise_run(const Conv2dCall& call) {
  const Conv2dShape& s = *call.shape;
  const float* weights = call.prepared;
  for (int64_t channel = 0; channel < s.out_channels; channel += kStep, weights += depthwise_panel_floats(s)) {
    run_channels(call, depthwise_panel(s, channel, weights));
  }
}

int64_t depthwise_pal_scratch_bytes(const Conv2dShape& s) {
  return round_up(depthwise_panel_floats(s) * static_cast<int64_t>(sizeof(float)), 64);
}

void depthwise_pal_run(const Conv2dCall& call) {
  const Conv2dShape& s = *call.shape;
  float* weights = reinterpret_cast<float*>(call.scratch);
  Palette palette;
  load_palette(s, *call.weights, &palette);
  for (int64_t channel = 0; channel < s.out_channels; channel += kStep) {
    fill_depthwise(s, *call.weights, palette, channel, weights);
    run_channels(call, depthwise_panel(s, channel, weights));
  }
}

}  // namespace
}  // namespace voxpress
