// Runs random layers of conv2d_u8 on every instruction set that the machine has, from codes and packed, whole and in
// parts, and compares them with the portable kernels byte by byte. For machines without Python, emulated ones above
// all: compare_u8 [layers]. All buffers end at a page that nothing may touch. Prints each layer that differs and the
// number of comparisons; the exit status is the number of failures, at most 100.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "base/isa.h"
#include "base/usage.h"
#include "conv_u8/conv2d_u8.h"

namespace {

using namespace voxpress;

// Memory whose last byte is followed, and whose first page preceded, by one that cannot be touched.
class Guarded {
 public:
  explicit Guarded(size_t size) : size_(size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (size + page - 1) / page * page + 2 * page;
    void* start = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    start_ = static_cast<unsigned char*>(start);
    if (start == MAP_FAILED || mprotect(start_, page, PROT_NONE) != 0 ||
        mprotect(start_ + mapped_ - page, page, PROT_NONE) != 0) {
      std::perror("guarded memory");
      std::exit(101);
    }
    data_ = start_ + mapped_ - page - size;
    std::memset(data_, 0xa5, size);
  }
  ~Guarded() { munmap(start_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  unsigned char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  size_t mapped_;
  unsigned char* start_;
  unsigned char* data_;
};

std::mt19937 engine{0};

int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }

void fill_normals(const Guarded& memory) {
  std::normal_distribution<float> normal;
  for (size_t at = 0; at + sizeof(float) <= memory.size(); at += sizeof(float)) {
    const float value = normal(engine);
    std::memcpy(memory.data() + at, &value, sizeof(value));
  }
}

void fill_bytes(const Guarded& memory) {
  // Extremes as often as not, for sums and transforms as large as they can be.
  const bool extreme = pick(0, 2) == 0;
  for (size_t at = 0; at < memory.size(); ++at) {
    const auto byte = static_cast<unsigned char>(engine());
    memory.data()[at] = extreme ? (byte < 128 ? 0 : 255) : byte;
  }
}

size_t size_of(Element element) { return element == Element::kF32 ? sizeof(float) : 1; }

void fill(const Guarded& memory, Element element) {
  element == Element::kF32 ? fill_normals(memory) : fill_bytes(memory);
}

Quantization random_quantization(bool zero_point) {
  return {static_cast<float>(pick(1, 1000)) * 1e-3f, zero_point ? static_cast<int32_t>(pick(0, 255)) : 0};
}

Conv2dU8Shape random_shape() {
  Conv2dU8Shape shape;
  Conv2dShape& s = shape.conv;
  const int64_t kind = pick(0, 5);  // Winograd with three of six, any, depthwise, grouped
  const bool winograd = kind < 3;
  s.groups = kind == 5 ? pick(2, 3) : 1;
  s.in_channels = winograd ? pick(1, 70) : s.groups * pick(1, 40);
  s.out_channels = winograd ? pick(1, 70) : s.groups * pick(1, 40);
  if (winograd && pick(0, 7) == 0) s.in_channels = s.out_channels = 200;
  if (winograd && pick(0, 5) == 0) s.in_channels = pick(1, 4) * 32;
  if (kind == 4) s.groups = s.out_channels = s.in_channels;
  s.kernel_frames = winograd ? 3 : pick(1, 4);
  s.kernel_mel = winograd ? 3 : pick(1, 4);
  s.stride_frames = winograd ? 1 : pick(1, 3);
  s.stride_mel = winograd ? 1 : pick(1, 3);
  s.pad_frames = pick(0, 2);
  s.pad_mel = pick(0, 2);
  s.batch = pick(1, 2);
  s.in_frames = pick(4, 14);
  s.in_mel = pick(4, 11);
  s.bits = pick(0, 8) == 0 ? 32 : static_cast<int32_t>(pick(1, 8));
  s.relu = pick(0, 1) == 1;
  shape.in = random_quantization(pick(0, 1) == 1);
  shape.res = random_quantization(pick(0, 1) == 1);
  shape.out = random_quantization(!s.relu && pick(0, 1) == 1);
  shape.input = !winograd && pick(0, 4) == 0 ? Element::kF32 : Element::kU8;
  shape.residual = pick(0, 3) == 0 ? Element::kF32 : Element::kU8;
  shape.output = pick(0, 3) == 0 ? Element::kF32 : Element::kU8;
  shape.algorithm = winograd ? static_cast<Algorithm>(pick(0, 3)) : Algorithm::kAuto;
  return shape;
}

size_t count(int64_t a, int64_t b, int64_t c, int64_t d) { return static_cast<size_t>(a * b * c * d); }

// A layer with its buffers, each as large as it must be.
struct Layer {
  Conv2dU8Shape shape = random_shape();
  const Conv2dShape& s = shape.conv;
  size_t weights = count(s.out_channels, s.kernel_frames, s.kernel_mel, s.in_channels / s.groups);
  size_t outputs = count(s.batch, conv2d_out_frames(s), conv2d_out_mel(s), s.out_channels);
  bool has_residual = pick(0, 1) == 1;
  Guarded codes{s.bits == 32 ? weights * sizeof(float) : (weights * static_cast<size_t>(s.bits) + 7) / 8};
  Guarded palette{s.bits == 32 ? 0 : sizeof(float) << s.bits};
  Guarded scale{static_cast<size_t>(s.out_channels) * sizeof(float)};
  Guarded bias{static_cast<size_t>(s.out_channels) * sizeof(float)};
  Guarded input{count(s.batch, s.in_frames, s.in_mel, s.in_channels) * size_of(shape.input)};
  Guarded residual{outputs * size_of(shape.residual)};

  Layer() {
    fill(codes, s.bits == 32 ? Element::kF32 : Element::kU8);
    for (const Guarded* floats : {&palette, &scale, &bias}) fill_normals(*floats);
    // +-a, as binary layers have them, beside other pairs.
    if (s.bits == 1 && pick(0, 1) == 1) {
      const float pair[2] = {-0.5f, 0.5f};
      std::memcpy(palette.data(), pair, sizeof(pair));
    }
    fill(input, shape.input);
    fill(residual, shape.residual);
    // Outputs of a few hundred steps, neither all clamped nor all alike.
    const auto row = static_cast<float>(weights / static_cast<size_t>(s.out_channels));
    if (shape.output == Element::kU8) shape.out.scale = shape.in.scale * (1.0f + row) * 0.3f;
  }

  Conv2dWeights all_weights() const {
    return {codes.data(),   codes.size(), palette.size() == 0 ? nullptr : palette.data(),
            palette.size(), scale.data(), scale.size(),
            bias.data(),    bias.size()};
  }
};

enum class Way { kCodes, kPacked, kParts };

// What the selected instruction set makes of a layer, into `output`.
Status run(const Layer& layer, Way way, const Guarded& output) {
  const Conv2dU8Tensors tensors{layer.input.data(), layer.has_residual ? layer.residual.data() : nullptr,
                                output.data()};
  if (way == Way::kCodes) {
    const Guarded scratch(conv2d_u8_scratch_bytes(layer.shape));
    return conv2d_u8_run(layer.shape, layer.all_weights(), tensors, scratch.data(), scratch.size());
  }
  const int32_t parts = way == Way::kParts ? 3 : 1;
  const Guarded packed(conv2d_u8_packed_bytes(layer.shape));
  const Guarded scratch(conv2d_u8_packed_scratch_bytes(layer.shape));
  for (int32_t part = 0; part < parts; ++part) {
    const Status status = conv2d_u8_pack(layer.shape, layer.all_weights(), packed.data(), packed.size(), {part, parts});
    if (status != Status::kOk) return status;
  }
  for (int32_t part = 0; part < parts; ++part) {
    const Status status = conv2d_u8_run_packed(layer.shape, packed.data(), packed.size(), tensors, scratch.data(),
                                               scratch.size(), {part, parts});
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

void print(const Layer& layer, Way way, Status status) {
  const Conv2dShape& s = layer.shape.conv;
  std::printf(
      "%s way %d: %s; [%lld, %lld, %lld, %lld] -> %lld, %lldx%lld, groups %lld, %d bits, elements %d%d%d, zeros %d %d "
      "%d\n",
      conv2d_u8_kernel_name(layer.shape), static_cast<int>(way), status_text(status), static_cast<long long>(s.batch),
      static_cast<long long>(s.in_frames), static_cast<long long>(s.in_mel), static_cast<long long>(s.in_channels),
      static_cast<long long>(s.out_channels), static_cast<long long>(s.kernel_frames),
      static_cast<long long>(s.kernel_mel), static_cast<long long>(s.groups), s.bits,
      static_cast<int>(layer.shape.input), static_cast<int>(layer.shape.residual), static_cast<int>(layer.shape.output),
      layer.shape.in.zero, layer.shape.res.zero, layer.shape.out.zero);
}

}  // namespace

int main(int argc, char** argv) {
  const long layers = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 100;
  int failures = 0;
  int comparisons = 0;
  for (long j = 0; j < layers; ++j) {
    const Layer layer;
    const Guarded expected(layer.outputs * size_of(layer.shape.output));
    bool right = select_isa(isa_name(Isa::kPortable)) == Status::kOk;
    const Status portable = run(layer, Way::kPacked, expected);
    if (!right || portable != Status::kOk) {
      print(layer, Way::kPacked, portable);
      ++failures;
      continue;
    }
    for (const Isa isa : {Isa::kPortable, Isa::kNeon, Isa::kNeonDot, Isa::kAvx2, Isa::kAvx512Vnni}) {
      if (select_isa(isa_name(isa)) != Status::kOk) continue;
      for (const Way way : {Way::kCodes, Way::kPacked, Way::kParts}) {
        const Guarded output(expected.size());
        const Status status = run(layer, way, output);
        ++comparisons;
        right = status == Status::kOk && std::memcmp(output.data(), expected.data(), expected.size()) == 0;
        if (right) continue;
        print(layer, way, status);
        ++failures;
      }
    }
  }
  char used[4096];
  kernels_used(used, sizeof(used));
  std::printf("%d comparisons, %d failures, kernels %s\n", comparisons, failures, used);
  return std::min(failures, 100);
}
