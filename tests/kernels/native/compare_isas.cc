// Runs random layers on every instruction set that the machine has, from codes and packed, against the formula in
// double, and as many of the family conv2d_u8 against the portable kernels. For machines without Python, emulated ones
// above all: compare_isas [layers]. Prints each layer that is off and the number of comparisons; the exit status is the
// number of failures, at most 100.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <vector>

#include "base/isa.h"
#include "base/usage.h"
#include "bitpack/unpack.h"
#include "compare_u8.h"
#include "conv/conv2d.h"

namespace {

using namespace voxpress;

struct Layer {
  Conv2dShape shape;
  std::vector<uint8_t> codes;
  std::vector<float> palette, scale, bias, input, residual;
  double bound = 0;  // of the error

  Conv2dWeights weights() const {
    return {codes.data(),   codes.size(),
            palette.data(), palette.size() * sizeof(float),
            scale.data(),   scale.size() * sizeof(float),
            bias.data(),    bias.size() * sizeof(float)};
  }
  size_t outputs() const {
    return static_cast<size_t>(shape.batch * conv2d_out_frames(shape) * conv2d_out_mel(shape) * shape.out_channels);
  }
};

std::mt19937 engine{0};

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }

std::vector<float> normals(size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

Layer random_layer() {
  Layer layer;
  Conv2dShape& s = layer.shape;
  const int64_t kind = pick(0, 3);  // Winograd, any, depthwise, grouped
  s.groups = kind == 3 ? pick(2, 3) : 1;
  s.in_channels = kind == 0 ? pick(8, 40) : s.groups * pick(1, 20);
  s.out_channels = kind == 0 ? pick(8, 70) : s.groups * pick(1, 40);
  if (kind == 0 && pick(0, 7) == 0) s.in_channels = s.out_channels = 200;
  if (kind == 2) s.groups = s.out_channels = s.in_channels;
  s.kernel_frames = kind == 0 ? 3 : pick(1, 4);
  s.kernel_mel = kind == 0 ? 3 : pick(1, 4);
  s.stride_frames = kind == 0 ? 1 : pick(1, 3);
  s.stride_mel = kind == 0 ? 1 : pick(1, 3);
  s.pad_frames = pick(1, 2);
  s.pad_mel = pick(1, 2);
  s.batch = pick(1, 2);
  s.in_frames = pick(2, 14);
  s.in_mel = pick(2, 11);
  s.bits = static_cast<int32_t>(pick(1, 8));
  s.relu = pick(0, 1) == 1;
  const int64_t weights = s.out_channels * s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups);
  layer.codes.resize(static_cast<size_t>((weights * s.bits + 7) / 8));
  for (uint8_t& code : layer.codes) code = static_cast<uint8_t>(engine());
  layer.palette = normals(size_t{1} << s.bits);
  layer.scale = normals(static_cast<size_t>(s.out_channels));
  layer.bias = normals(static_cast<size_t>(s.out_channels));
  layer.input = normals(static_cast<size_t>(s.batch * s.in_frames * s.in_mel * s.in_channels));
  layer.residual = normals(layer.outputs());
  return layer;
}

// The formula of conv2d.h.
std::vector<double> expected(Layer* layer) {
  const Conv2dShape& s = layer->shape;
  const int64_t depth = s.in_channels / s.groups;
  const int64_t row = s.kernel_frames * s.kernel_mel * depth;
  std::vector<uint8_t> codes(static_cast<size_t>(s.out_channels * row));
  unpack_codes(layer->codes.data(), layer->codes.size(), s.bits, 0, s.out_channels * row, codes.data());
  std::vector<double> out;
  double largest = 0;
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t t = 0; t < conv2d_out_frames(s); ++t) {
      for (int64_t f = 0; f < conv2d_out_mel(s); ++f) {
        for (int64_t o = 0; o < s.out_channels; ++o) {
          const int64_t group = o / (s.out_channels / s.groups);
          double sum = 0;
          double size = 0;
          for (int64_t k = 0; k < row; ++k) {
            const int64_t tap = k / depth;
            const int64_t frame = t * s.stride_frames - s.pad_frames + tap / s.kernel_mel;
            const int64_t mel = f * s.stride_mel - s.pad_mel + tap % s.kernel_mel;
            if (frame < 0 || frame >= s.in_frames || mel < 0 || mel >= s.in_mel) continue;
            const int64_t at = ((n * s.in_frames + frame) * s.in_mel + mel) * s.in_channels + group * depth + k % depth;
            const double term = static_cast<double>(layer->input[static_cast<size_t>(at)]) *
                                static_cast<double>(layer->palette[codes[static_cast<size_t>(o * row + k)]]);
            sum += term;
            size += std::fabs(term);
          }
          const auto channel = static_cast<size_t>(o);
          double value = layer->scale[channel] * sum + layer->bias[channel] + layer->residual[out.size()];
          largest = std::max(largest, std::fabs(layer->scale[channel]) * size + 4);
          out.push_back(s.relu && value < 0 ? 0 : value);
        }
      }
    }
  }
  layer->bound = 16 * std::numeric_limits<float>::epsilon() * largest;
  return out;
}

struct Scratch {
  explicit Scratch(size_t bytes) : size(bytes), data(::operator new(bytes, std::align_val_t{64})) {
    std::memset(data, 0xff, bytes);
  }
  ~Scratch() { ::operator delete(data, std::align_val_t{64}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  size_t size;
  void* data;
};

// True if the layer ran and is what it should be.
bool right(const Layer& layer, const std::vector<double>& wanted, bool packed) {
  std::vector<float> output(wanted.size(), std::numeric_limits<float>::quiet_NaN());
  const Conv2dTensors tensors{layer.input.data(), layer.residual.data(), output.data()};
  Status status;
  if (packed) {
    const Scratch weights(conv2d_packed_bytes(layer.shape));
    const Scratch scratch(conv2d_packed_scratch_bytes(layer.shape));
    status = conv2d_pack(layer.shape, layer.weights(), weights.data, weights.size);
    if (status == Status::kOk) {
      status = conv2d_run_packed(layer.shape, weights.data, weights.size, tensors, scratch.data, scratch.size);
    }
  } else {
    const Scratch scratch(conv2d_scratch_bytes(layer.shape));
    status = conv2d_run(layer.shape, layer.weights(), tensors, scratch.data, scratch.size);
  }
  double error = 0;
  for (size_t j = 0; j < wanted.size(); ++j) {
    const double difference = std::fabs(output[j] - wanted[j]);
    if (!(difference <= error)) error = difference;
  }
  if (status == Status::kOk && error <= layer.bound) return true;
  const Conv2dShape& s = layer.shape;
  std::printf("%s: %s, error %g, at most %g; [%lld, %lld, %lld, %lld] -> %lld, %lldx%lld, groups %lld, %d bits\n",
              packed ? conv2d_packed_kernel_name(s) : conv2d_kernel_name(s), status_text(status), error, layer.bound,
              static_cast<long long>(s.batch), static_cast<long long>(s.in_frames), static_cast<long long>(s.in_mel),
              static_cast<long long>(s.in_channels), static_cast<long long>(s.out_channels),
              static_cast<long long>(s.kernel_frames), static_cast<long long>(s.kernel_mel),
              static_cast<long long>(s.groups), s.bits);
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const long layers = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 100;
  int failures = 0;
  int comparisons = 0;
  for (long j = 0; j < layers; ++j) {
    Layer layer = random_layer();
    const std::vector<double> wanted = expected(&layer);
    for (const Isa isa : {Isa::kPortable, Isa::kNeon, Isa::kAvx2, Isa::kAvx512}) {  // fp32 kernels have no others
      if (select_isa(isa_name(isa)) != Status::kOk) continue;
      for (const bool packed : {false, true}) {
        failures += right(layer, wanted, packed) ? 0 : 1;
        ++comparisons;
      }
    }
  }
  const Comparison u8 = compare_u8(layers);
  char used[4096];
  kernels_used(used, sizeof(used));
  std::printf("%d comparisons, %d failures; conv2d_u8: %d comparisons, %d failures; kernels %s\n", comparisons,
              failures, u8.comparisons, u8.failures, used);
  return std::min(failures + u8.failures, 100);
}
