// Depthwise convolution: every channel has its own taps, so channels are the vector and 16 of them accumulate in
// registers while the taps go by. Weights are expanded for 64 channels (four cache lines) at a time.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "conv/lanes.h"
#include "conv/panel.h"
#include "conv/variants.h"

namespace voxpress {
namespace {

constexpr int kBlock = 64;
constexpr int kStep = 16;

struct Block {
  int64_t first_channel;
  int channels;
  const float* panel;  // [taps][kBlock]
  float scale[kBlock];
  float bias[kBlock];
};

struct Position {
  int64_t index;        // over [batch, frames, mel] of the output
  int64_t first_frame;  // input frame under tap 0, may lie outside
  int64_t first_mel;
  const float* utterance;  // input of this utterance
};

template <int kVectors>
void run_step(const Conv2dShape& s, const Conv2dTensors& tensors, const Position& at, const Block& block, int step) {
  Lanes sum[kVectors] = {};
  const int64_t frame_end = std::min(s.kernel_frames, s.in_frames - at.first_frame);
  const int64_t mel_begin = std::max<int64_t>(0, -at.first_mel);
  const int64_t mel_end = std::min(s.kernel_mel, s.in_mel - at.first_mel);
  for (int64_t dt = std::max<int64_t>(0, -at.first_frame); dt < frame_end; ++dt) {
    for (int64_t df = mel_begin; df < mel_end; ++df) {
      const float* x = at.utterance + ((at.first_frame + dt) * s.in_mel + at.first_mel + df) * s.in_channels +
                       block.first_channel + step;
      const float* w = block.panel + (dt * s.kernel_mel + df) * kBlock + step;
      for (int v = 0; v < kVectors; ++v) sum[v] += load(x + v * kLanes) * load(w + v * kLanes);
    }
  }
  const int64_t offset = at.index * s.out_channels + block.first_channel + step;
  for (int v = 0; v < kVectors; ++v) {
    const int lane = v * kLanes;
    Lanes value = load(block.scale + step + lane) * sum[v] + load(block.bias + step + lane);
    if (tensors.residual != nullptr) value += load(tensors.residual + offset + lane);
    store(tensors.output + offset + lane, s.relu ? relu(value) : value);
  }
}

// One channel, for the last channels of a layer whose channel count is no multiple of four.
void run_channel(const Conv2dShape& s, const Conv2dTensors& tensors, const Position& at, const Block& block, int step) {
  float sum = 0.0f;
  const int64_t frame_end = std::min(s.kernel_frames, s.in_frames - at.first_frame);
  const int64_t mel_begin = std::max<int64_t>(0, -at.first_mel);
  const int64_t mel_end = std::min(s.kernel_mel, s.in_mel - at.first_mel);
  for (int64_t dt = std::max<int64_t>(0, -at.first_frame); dt < frame_end; ++dt) {
    for (int64_t df = mel_begin; df < mel_end; ++df) {
      const int64_t x = ((at.first_frame + dt) * s.in_mel + at.first_mel + df) * s.in_channels;
      sum += at.utterance[x + block.first_channel + step] * block.panel[(dt * s.kernel_mel + df) * kBlock + step];
    }
  }
  const int64_t offset = at.index * s.out_channels + block.first_channel + step;
  float value = block.scale[step] * sum + block.bias[step];
  if (tensors.residual != nullptr) value += tensors.residual[offset];
  tensors.output[offset] = s.relu && value < 0.0f ? 0.0f : value;
}

void run_position(const Conv2dShape& s, const Conv2dTensors& tensors, const Position& at, const Block& block) {
  int step = 0;
  for (; block.channels - step >= kStep; step += kStep) run_step<kStep / kLanes>(s, tensors, at, block, step);
  for (; block.channels - step >= kLanes; step += kLanes) run_step<1>(s, tensors, at, block, step);
  for (; step < block.channels; ++step) run_channel(s, tensors, at, block, step);
}

}  // namespace

size_t dwconv2d_portable_scratch_bytes(const Conv2dShape& shape) {
  return static_cast<size_t>(shape.kernel_frames * shape.kernel_mel) * kBlock * sizeof(float);
}

void dwconv2d_f32_pal_1x16_portable(const Conv2dShape& s, const Conv2dWeights& weights, const Conv2dTensors& tensors,
                                    unsigned char* scratch) {
  float* panel = reinterpret_cast<float*>(scratch);
  Palette palette;
  load_palette(s, weights, &palette);
  const int64_t out_frames = conv2d_out_frames(s);
  const int64_t out_mel = conv2d_out_mel(s);
  for (int64_t channel = 0; channel < s.out_channels; channel += kBlock) {
    Block block;
    block.first_channel = channel;
    block.channels = static_cast<int>(std::min<int64_t>(kBlock, s.out_channels - channel));
    block.panel = panel;
    load_floats(weights.scale, channel, block.channels, kBlock, block.scale);
    load_floats(weights.bias, channel, block.channels, kBlock, block.bias);
    fill_panel(s, weights, palette, {s.kernel_frames * s.kernel_mel, channel, block.channels, kBlock}, panel);
    Position at{0, 0, 0, tensors.input};
    for (int64_t n = 0; n < s.batch; ++n, at.utterance += s.in_frames * s.in_mel * s.in_channels) {
      for (int64_t t = 0; t < out_frames; ++t) {
        for (int64_t f = 0; f < out_mel; ++f, ++at.index) {
          at.first_frame = t * s.stride_frames - s.pad_frames;
          at.first_mel = f * s.stride_mel - s.pad_mel;
          run_position(s, tensors, at, block);
        }
      }
    }
  }
}

}  // namespace voxpress
