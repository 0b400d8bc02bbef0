#include "compare_u8.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <random>
#include <vector>

#include "base/isa.h"
#include "conv_u8/conv2d_u8.h"

namespace {

using namespace voxpress;

std::mt19937 engine{1};

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }

std::vector<float> normals(int64_t count, float size) {
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(engine);
  return values;
}

struct Layer {
  Conv2dU8Shape shape;
  std::vector<uint8_t> codes, input, residual;
  std::vector<float> palette, scale, bias;

  Conv2dWeights weights() const {
    return {codes.data(),   codes.size(),
            palette.data(), palette.size() * sizeof(float),
            scale.data(),   scale.size() * sizeof(float),
            bias.data(),    bias.size() * sizeof(float)};
  }
  int64_t outputs() const {
    const Conv2dShape& s = shape.conv;
    return s.batch * conv2d_out_frames(s) * conv2d_out_mel(s) * s.out_channels;
  }
};

std::vector<uint8_t> elements(int64_t count, Element element) {
  if (element == Element::kF32) {
    const std::vector<float> values = normals(count, 1.0f);
    std::vector<uint8_t> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(engine());
  return bytes;
}

Layer random_layer() {
  Layer layer;
  Conv2dU8Shape& u8 = layer.shape;
  Conv2dShape& s = u8.conv;
  const int64_t kind = pick(0, 4);  // F(4x4), F(2x2), any, depthwise, grouped
  const bool winograd = kind < 2;
  s.groups = kind == 4 ? pick(2, 3) : 1;
  s.in_channels = winograd ? pick(1, 140) : s.groups * pick(1, 80);
  s.out_channels = winograd ? pick(1, 70) : s.groups * pick(1, 40);
  if (kind == 3) s.groups = s.out_channels = s.in_channels;
  s.kernel_frames = winograd ? 3 : pick(1, 5);
  s.kernel_mel = winograd ? 3 : pick(1, 4);
  s.stride_frames = winograd ? 1 : pick(1, 2);
  s.stride_mel = winograd ? 1 : pick(1, 2);
  s.pad_frames = pick(1, 2);
  s.pad_mel = pick(1, 2);
  s.batch = pick(1, 2);
  s.in_frames = pick(3, 20);
  s.in_mel = pick(3, 20);
  s.bits = static_cast<int32_t>(pick(1, 8));
  s.relu = pick(0, 1) == 1;
  u8.algorithm = kind == 0 ? Algorithm::kWinograd4 : kind == 1 ? Algorithm::kWinograd2 : Algorithm::kDirect;
  u8.input = winograd || pick(0, 3) != 0 ? Element::kU8 : Element::kF32;
  u8.residual = pick(0, 3) != 0 ? Element::kU8 : Element::kF32;
  u8.output = pick(0, 3) != 0 ? Element::kU8 : Element::kF32;
  const bool centred = pick(0, 1) == 1;
  for (Quantization* q : {&u8.in, &u8.res, &u8.out}) {
    *q = {0.01f * static_cast<float>(pick(1, 9)), centred ? static_cast<int32_t>(pick(0, 255)) : 0};
  }
  const int64_t depth = s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups);
  layer.codes = elements((s.out_channels * depth * s.bits + 7) / 8, Element::kU8);
  layer.palette = normals(int64_t{1} << s.bits, 1.0f / static_cast<float>(depth));
  if (pick(0, 1) == 1) layer.palette[0] = -layer.palette[1];
  layer.scale = normals(s.out_channels, 1.0f);
  layer.bias = normals(s.out_channels, 1.0f);
  layer.input = elements(s.batch * s.in_frames * s.in_mel * s.in_channels, u8.input);
  layer.residual = elements(layer.outputs(), u8.residual);
  return layer;
}

struct Memory {
  explicit Memory(size_t bytes) : size(bytes), data(::operator new(bytes, std::align_val_t{64})) {
    std::memset(data, 0xff, bytes);
  }
  ~Memory() { ::operator delete(data, std::align_val_t{64}); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  size_t size;
  void* data;
};

// Output bytes, packed and run in `parts`; empty if that failed.
std::vector<uint8_t> run(const Layer& layer, bool with_residual, int32_t parts) {
  const size_t size = layer.shape.output == Element::kF32 ? sizeof(float) : 1;
  std::vector<uint8_t> output(static_cast<size_t>(layer.outputs()) * size, 0xa5);
  const Memory packed(conv2d_u8_packed_bytes(layer.shape));
  const Memory scratch(conv2d_u8_packed_scratch_bytes(layer.shape));
  const Conv2dU8Tensors tensors{layer.input.data(), with_residual ? layer.residual.data() : nullptr, output.data()};
  Status status = Status::kOk;
  for (int32_t part = 0; part < parts && status == Status::kOk; ++part) {
    status = conv2d_u8_pack(layer.shape, layer.weights(), packed.data, packed.size, {part, parts});
  }
  for (int32_t part = 0; part < parts && status == Status::kOk; ++part) {
    status =
        conv2d_u8_run_packed(layer.shape, packed.data, packed.size, tensors, scratch.data, scratch.size, {part, parts});
  }
  if (status != Status::kOk) output.clear();
  return output;
}

void print(const Layer& layer, int32_t parts) {
  const Conv2dShape& s = layer.shape.conv;
  std::printf(
      "%s: not the portable bytes; [%lld, %lld, %lld, %lld] -> %lld, %lldx%lld, groups %lld, %d bits, %d parts\n",
      conv2d_u8_kernel_name(layer.shape), static_cast<long long>(s.batch), static_cast<long long>(s.in_frames),
      static_cast<long long>(s.in_mel), static_cast<long long>(s.in_channels), static_cast<long long>(s.out_channels),
      static_cast<long long>(s.kernel_frames), static_cast<long long>(s.kernel_mel), static_cast<long long>(s.groups),
      s.bits, parts);
}

}  // namespace

Comparison compare_u8(long layers) {
  Comparison result;
  for (long j = 0; j < layers; ++j) {
    const Layer layer = random_layer();
    const bool with_residual = pick(0, 1) == 1;
    select_isa("portable");
    const std::vector<uint8_t> wanted = run(layer, with_residual, 1);
    for (const Isa isa : {Isa::kPortable, Isa::kNeon, Isa::kNeonDot, Isa::kAvx2, Isa::kAvx512Vnni}) {
      if (select_isa(isa_name(isa)) != Status::kOk) continue;
      for (const int32_t parts : {1, 3}) {
        ++result.comparisons;
        if (!wanted.empty() && run(layer, with_residual, parts) == wanted) continue;
        ++result.failures;
        print(layer, parts);
      }
    }
  }
  return result;
}
