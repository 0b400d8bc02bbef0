#include "bench/network.h"

#include <cmath>
#include <cstring>

namespace voxpress {
namespace {

constexpr int64_t kMel = 80;
constexpr int64_t kBaseChannels = 32;
constexpr int64_t kEmbedding = 256;
constexpr int kStages = 4;

// What a layer gives, as the input of the next.
Conv2dShape output_of(const Conv2dShape& s) {
  Conv2dShape out = s;
  out.in_frames = conv2d_out_frames(s);
  out.in_mel = conv2d_out_mel(s);
  out.in_channels = s.out_channels;
  return out;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

Memory aligned(size_t bytes) {
  auto* memory = static_cast<unsigned char*>(::operator new(bytes, std::align_val_t{64}));
  std::memset(memory, 0, bytes);
  return Memory(memory);
}

Conv2dWeights Layer::weights() const {
  return {codes.data(),   codes.size(),
          palette.data(), palette.size() * sizeof(float),
          scale.data(),   scale.size() * sizeof(float),
          bias.data(),    bias.size() * sizeof(float)};
}

int64_t Layer::macs() const {
  return shape.batch * conv2d_out_frames(shape) * conv2d_out_mel(shape) * shape.out_channels * shape.kernel_frames *
         shape.kernel_mel * (shape.in_channels / shape.groups);
}

Network::Network(const std::string& name, int64_t frames, int32_t bits) : bits_(bits) {
  if (name == "resnet34") add_resnet34(frames);
  if (name == "dfresnet56") add_dfresnet56(frames);
  for (Layer& layer : layers_) fill(&layer);
  quantize();
}

const Conv2dShape& Network::add(const std::string& name, const Conv2dShape& before, int64_t out, int64_t kernel,
                                int64_t stride) {
  Layer layer;
  layer.name = name;
  layer.residual = ends_with(name, ".conv2") || ends_with(name, ".conv3");
  Conv2dShape& s = layer.shape;
  s = before;
  s.groups = 1;
  s.out_channels = out;
  s.kernel_frames = s.kernel_mel = kernel;
  s.stride_frames = s.stride_mel = stride;
  s.pad_frames = s.pad_mel = (kernel - 1) / 2;
  s.bits = bits_;
  s.relu = true;
  layers_.push_back(std::move(layer));
  return layers_.back().shape;
}

void Network::add_resnet34(int64_t frames) {
  Conv2dShape x;
  x.batch = x.in_channels = 1;
  x.in_frames = frames;
  x.in_mel = kMel;
  x = output_of(add("conv1", x, kBaseChannels, 3, 1));
  const int blocks[kStages] = {3, 4, 6, 3};
  for (int stage = 0; stage < kStages; ++stage) {
    const int64_t channels = kBaseChannels << stage;
    for (int block = 0; block < blocks[stage]; ++block) {
      const std::string name = "layer" + std::to_string(stage + 1) + "." + std::to_string(block);
      const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      if (stride == 2) add(name + ".shortcut", x, channels, 1, 2);
      x = output_of(add(name + ".conv1", x, channels, 3, stride));
      x = output_of(add(name + ".conv2", x, channels, 3, 1));
    }
  }
  add_embedding();
}

void Network::add_dfresnet56(int64_t frames) {
  Conv2dShape x;
  x.batch = x.in_channels = 1;
  x.in_frames = frames;
  x.in_mel = kMel;
  x = output_of(add("stem", x, kBaseChannels, 3, 1));
  const int blocks[kStages] = {3, 3, 9, 3};
  for (int stage = 0; stage < kStages; ++stage) {
    const int64_t channels = kBaseChannels << stage;
    const std::string name = "stage" + std::to_string(stage + 1);
    if (stage > 0) x = output_of(add(name + ".downsample", x, channels, 2, 2));
    for (int block = 0; block < blocks[stage]; ++block) {
      const std::string in_stage = name + "." + std::to_string(block);
      x = output_of(add(in_stage + ".conv1", x, 4 * channels, 1, 1));
      add(in_stage + ".depthwise", x, 4 * channels, 3, 1);
      layers_.back().shape.groups = 4 * channels;
      x = output_of(add(in_stage + ".conv3", x, channels, 1, 1));
    }
  }
  add_embedding();
}

void Network::add_embedding() {
  const Conv2dShape last = output_of(layers_.back().shape);
  Conv2dShape pooled;
  pooled.batch = pooled.in_frames = pooled.in_mel = 1;
  pooled.in_channels = 2 * last.in_mel * last.in_channels;
  add("seg_1", pooled, kEmbedding, 1, 1);
}

void Network::fill(Layer* layer) {
  const Conv2dShape& s = layer->shape;
  const int64_t row = s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups);
  layer->codes.resize(static_cast<size_t>((s.out_channels * row * bits_ + 7) / 8));
  for (uint8_t& code : layer->codes) code = static_cast<uint8_t>(random_());
  // Of the size that keeps activations near one: what overflows or fades into denormals is timed wrongly.
  std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(row)));
  layer->palette.resize(size_t{1} << bits_);
  for (float& value : layer->palette) value = normal(random_);
  layer->scale.assign(static_cast<size_t>(s.out_channels), 1.0f);
  layer->bias.assign(static_cast<size_t>(s.out_channels), 0.1f);
}

// Activations are bytes between the stem and the last convolution; those behind a ReLU begin at zero.
void Network::quantize() {
  constexpr Quantization kPositive = {0.02f, 0};
  constexpr Quantization kCentred = {0.02f, 128};
  Quantization before = kPositive;
  for (Layer& layer : layers_) {
    Conv2dU8Shape& u8 = layer.u8;
    const bool is_embedding = &layer == &layers_.back();
    const bool is_shortcut = ends_with(layer.name, ".shortcut");
    layer.shape.relu = !is_shortcut && !is_embedding && !ends_with(layer.name, ".downsample");
    u8.conv = layer.shape;
    u8.input = &layer == &layers_.front() || is_embedding ? Element::kF32 : Element::kU8;
    u8.output = is_embedding || &layer + 1 == &layers_.back() ? Element::kF32 : Element::kU8;
    u8.in = before;
    u8.out = layer.shape.relu ? kPositive : kCentred;
    u8.res = ends_with(layer.name, ".0.conv2") || ends_with(layer.name, ".0.conv3") ? kCentred : kPositive;
    before = is_shortcut ? before : u8.out;
  }
}

}  // namespace voxpress
