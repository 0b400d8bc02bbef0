// Times every layer of a ResNet34 (80 mel bins, 32 to 256 channels), instruction set by instruction set, and writes
// JSON:
//
//   voxpress_kernel_bench [--mode exact|fast] [--frames 200] [--bits 4] [--repeats 15] [--isa avx512|widest] [--codes]
//                         [--program FILE]
//
// --program times the layers of a file instead, one a line, in words separated by spaces: name, frames and mel bins of
// its input, input and output channels, then (frames, mel) of kernel, stride and padding, groups, 1 for a ReLU, and 1
// for a residual.
// Layers run in the order of the network, each instance on weights of its own, so that caches see what they see in a
// model. Raw samples in nanoseconds of CPU time; the roof is that of a loop of multiply-adds in registers, timed before
// each repeat.
// --codes runs from codes instead of packed weights. In mode fast, activations are bytes from the stem on to the last
// convolution.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/isa.h"
#include "base/status.h"
#include "bench/roof.h"
#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"

namespace voxpress {

#define VOXPRESS_ROOF(name) extern const Roof name;
#if defined(__x86_64__)
VOXPRESS_ROOF(roof_avx512vnni)
VOXPRESS_ROOF(roof_avx512)
VOXPRESS_ROOF(roof_integers_avx2)
VOXPRESS_ROOF(roof_avx2)
#endif
#if defined(__aarch64__)
VOXPRESS_ROOF(roof_integers_neondot)
VOXPRESS_ROOF(roof_neon)
#endif
VOXPRESS_ROOF(roof_portable)
#undef VOXPRESS_ROOF

namespace {

constexpr const Roof* kRoofs[] = {
#if defined(__x86_64__)
    &roof_avx512vnni,       &roof_avx512, &roof_integers_avx2, &roof_avx2,
#endif
#if defined(__aarch64__)
    &roof_integers_neondot, &roof_neon,
#endif
    &roof_portable};

struct Settings {
  int64_t frames = 200;
  int32_t bits = 4;
  int repeats = 15;
  const char* isa = nullptr;
  const char* program = nullptr;
  bool codes = false;
  bool fast = false;
};

struct Free {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};
using Memory = std::unique_ptr<unsigned char, Free>;

Memory aligned(size_t bytes) {
  auto* memory = static_cast<unsigned char*>(::operator new(bytes, std::align_val_t{64}));
  std::memset(memory, 0, bytes);
  return Memory(memory);
}

// One layer of the network with weights of its own.
struct Layer {
  std::string name;
  Conv2dShape shape;
  Conv2dU8Shape u8;  // the same layer in mode fast
  bool residual = false;
  std::vector<uint8_t> codes;
  std::vector<float> palette, scale, bias;
  Memory packed;
  size_t packed_bytes = 0;
  std::vector<int64_t> samples_ns;

  Conv2dWeights weights() const {
    return {codes.data(),   codes.size(),
            palette.data(), palette.size() * sizeof(float),
            scale.data(),   scale.size() * sizeof(float),
            bias.data(),    bias.size() * sizeof(float)};
  }
  int64_t macs() const {
    return shape.batch * conv2d_out_frames(shape) * conv2d_out_mel(shape) * shape.out_channels * shape.kernel_frames *
           shape.kernel_mel * (shape.in_channels / shape.groups);
  }
};

class Network {
 public:
  explicit Network(const Settings& settings) : bits_(settings.bits) {
    if (settings.program != nullptr) {
      read(settings.program);
    } else {
      add_resnet34(settings.frames);
    }
    quantize();
  }

  std::vector<Layer>& layers() { return layers_; }

 private:
  void read(const char* path) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string name;
      Conv2dShape s;
      int relu = 0, residual = 0;
      words >> name >> s.in_frames >> s.in_mel >> s.in_channels >> s.out_channels >> s.kernel_frames >> s.kernel_mel >>
          s.stride_frames >> s.stride_mel >> s.pad_frames >> s.pad_mel >> s.groups >> relu >> residual;
      s.batch = 1;
      s.bits = bits_;
      s.relu = relu != 0;
      const bool sane = !words.fail() && s.out_channels > 0 && s.groups > 0 && s.in_channels >= s.groups;
      if (sane) add(name, s, residual != 0);
      if (!sane || conv2d_check(s, layers_.back().weights()) != Status::kOk) {
        std::fprintf(stderr, "%s: expected a layer, found \"%s\"\n", path, line.c_str());
        std::exit(2);
      }
    }
    if (layers_.empty()) {
      std::fprintf(stderr, "%s: expected a file of layers, found none\n", path);
      std::exit(2);
    }
  }

  void add_resnet34(int64_t frames) {
    Conv2dShape x = conv(frames, 80, 1, 32, 3, 1);
    add("conv1", x, false);
    const int blocks[] = {3, 4, 6, 3};
    for (int stage = 0; stage < 4; ++stage) {
      const int64_t channels = int64_t{32} << stage;
      for (int block = 0; block < blocks[stage]; ++block) {
        const std::string name = "layer" + std::to_string(stage + 1) + "." + std::to_string(block);
        const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
        const Conv2dShape first = conv(conv2d_out_frames(x), conv2d_out_mel(x), x.out_channels, channels, 3, stride);
        if (stride == 2) {
          add(name + ".shortcut", conv(first.in_frames, first.in_mel, first.in_channels, channels, 1, 2), false);
        }
        add(name + ".conv1", first, false);
        x = conv(conv2d_out_frames(first), conv2d_out_mel(first), channels, channels, 3, 1);
        add(name + ".conv2", x, true);
      }
    }
    add("seg_1", conv(1, 1, 2 * conv2d_out_mel(x) * x.out_channels, 256, 1, 1), false);
  }

  Conv2dShape conv(int64_t frames, int64_t mel, int64_t in, int64_t out, int64_t kernel, int64_t stride) const {
    Conv2dShape s;
    s.batch = 1;
    s.in_frames = frames;
    s.in_mel = mel;
    s.in_channels = in;
    s.out_channels = out;
    s.kernel_frames = s.kernel_mel = kernel;
    s.stride_frames = s.stride_mel = stride;
    s.pad_frames = s.pad_mel = kernel / 2;
    s.bits = bits_;
    s.relu = true;
    return s;
  }

  // Linear layers come after pooling, whose output has one frame and one mel bin.
  static bool is_linear(const Layer& layer) { return layer.shape.in_frames == 1 && layer.shape.in_mel == 1; }

  // Activations are bytes between the stem and the last convolution; those behind a ReLU begin at zero.
  void quantize() {
    constexpr float kStep = 0.02f;
    for (Layer& layer : layers_) {
      Conv2dU8Shape& u8 = layer.u8;
      const bool is_first = &layer == &layers_.front();
      const bool is_embedding = is_linear(layer);
      const bool is_last_map = &layer != &layers_.back() && is_linear(*(&layer + 1));
      const bool is_shortcut = layer.name.find("shortcut") != std::string::npos;
      u8.conv = layer.shape;
      u8.conv.relu = layer.shape.relu && !is_shortcut && !is_embedding;
      u8.input = is_first || is_embedding ? Element::kF32 : Element::kU8;
      u8.output = is_embedding || is_last_map ? Element::kF32 : Element::kU8;
      u8.in = {kStep, 0};
      u8.out = {kStep, u8.conv.relu ? 0 : 128};
      u8.res = {kStep, layer.residual && layer.name.find(".0.") != std::string::npos ? 128 : 0};
    }
  }

  void add(const std::string& name, const Conv2dShape& shape, bool residual) {
    Layer layer;
    layer.name = name;
    layer.shape = shape;
    layer.residual = residual;
    const int64_t count =
        shape.out_channels * shape.kernel_frames * shape.kernel_mel * (shape.in_channels / shape.groups);
    layer.codes.resize(static_cast<size_t>((count * bits_ + 7) / 8));
    for (uint8_t& code : layer.codes) code = static_cast<uint8_t>(random_());
    // Of the size that keeps activations near one: what overflows or fades into denormals is timed wrongly.
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(count / shape.out_channels)));
    layer.palette.resize(size_t{1} << bits_);
    for (float& value : layer.palette) value = normal(random_);
    layer.scale.assign(static_cast<size_t>(shape.out_channels), 1.0f);
    layer.bias.assign(static_cast<size_t>(shape.out_channels), 0.1f);
    layers_.push_back(std::move(layer));
  }

  int32_t bits_;
  std::mt19937 random_{0};
  std::vector<Layer> layers_;
};

// Time that this thread has spent computing: on a machine that others use too, wall time counts their turns as well.
int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{1000000000} * time.tv_sec + time.tv_nsec;
}

void require(Status status, const std::string& what) {
  if (status == Status::kOk) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), status_text(status));
  std::exit(1);
}

size_t scratch_bytes_of(const Layer& layer, const Settings& settings) {
  if (settings.fast) {
    return settings.codes ? conv2d_u8_scratch_bytes(layer.u8) : conv2d_u8_packed_scratch_bytes(layer.u8);
  }
  return settings.codes ? conv2d_scratch_bytes(layer.shape) : conv2d_packed_scratch_bytes(layer.shape);
}

void pack(Layer* layer, const Settings& settings) {
  layer->packed_bytes = settings.fast ? conv2d_u8_packed_bytes(layer->u8) : conv2d_packed_bytes(layer->shape);
  layer->packed = aligned(layer->packed_bytes);
  require(settings.fast ? conv2d_u8_pack(layer->u8, layer->weights(), layer->packed.get(), layer->packed_bytes)
                        : conv2d_pack(layer->shape, layer->weights(), layer->packed.get(), layer->packed_bytes),
          layer->name);
}

const char* kernel_name_of(const Layer& layer, const Settings& settings) {
  if (settings.fast) return conv2d_u8_kernel_name(layer.u8);
  return settings.codes ? conv2d_kernel_name(layer.shape) : conv2d_packed_kernel_name(layer.shape);
}

Status run_exact(const Layer& layer, bool codes, const void* input, void* output, const Memory& scratch,
                 size_t scratch_bytes) {
  Conv2dTensors tensors;
  tensors.input = static_cast<const float*>(input);
  tensors.output = static_cast<float*>(output);
  if (layer.residual) tensors.residual = tensors.output;
  return codes ? conv2d_run(layer.shape, layer.weights(), tensors, scratch.get(), scratch_bytes)
               : conv2d_run_packed(layer.shape, layer.packed.get(), layer.packed_bytes, tensors, scratch.get(),
                                   scratch_bytes);
}

// The residual of the last convolution, whose output is larger than its input, has a map of its own.
Status run_fast(const Layer& layer, bool codes, const void* input, void* output, const void* residual,
                const Memory& scratch, size_t scratch_bytes) {
  const Conv2dU8Tensors tensors{input, layer.residual ? residual : nullptr, output};
  return codes ? conv2d_u8_run(layer.u8, layer.weights(), tensors, scratch.get(), scratch_bytes)
               : conv2d_u8_run_packed(layer.u8, layer.packed.get(), layer.packed_bytes, tensors, scratch.get(),
                                      scratch_bytes);
}

// Times each layer once. Inputs, residuals and outputs take turns on two buffers, as they do in a planned model.
void run_once(Network* network, const Settings& settings, const Memory (&maps)[3], const Memory& scratch,
              size_t scratch_bytes) {
  const Conv2dShape& first = network->layers().front().shape;
  auto* features = reinterpret_cast<float*>(maps[0].get());
  for (int64_t j = 0; j < first.in_frames * first.in_mel; ++j) features[j] = static_cast<float>(j % 7) - 3.0f;
  int turn = 0;
  for (Layer& layer : network->layers()) {
    const void* input = maps[turn].get();
    void* output = maps[1 - turn].get();
    const void* residual = layer.u8.output == Element::kU8 ? output : maps[2].get();
    const int64_t begin = now_ns();
    const Status status = settings.fast
                              ? run_fast(layer, settings.codes, input, output, residual, scratch, scratch_bytes)
                              : run_exact(layer, settings.codes, input, output, scratch, scratch_bytes);
    layer.samples_ns.push_back(now_ns() - begin);
    require(status, layer.name);
    turn = 1 - turn;
  }
}

// Whether a roof is the one for a mode among those of its instruction set.
bool is_of_mode(const Roof& roof, bool fast) {
  if (roof.integers == fast) return true;
  return std::none_of(std::begin(kRoofs), std::end(kRoofs),
                      [&](const Roof* other) { return other->isa == roof.isa && other->integers == fast; });
}

int64_t time_roof(const Roof& roof, int64_t rounds) {
  const int64_t begin = now_ns();
  volatile float sink = roof.loop(rounds, 1e-3f);
  static_cast<void>(sink);
  return now_ns() - begin;
}

void print_samples(const std::vector<int64_t>& samples) {
  std::printf("\"samples_ns\": [");
  for (size_t j = 0; j < samples.size(); ++j) {
    std::printf("%s%lld", j == 0 ? "" : ", ", static_cast<long long>(samples[j]));
  }
  std::printf("]");
}

void run_isa(const Roof& roof, const Settings& settings, bool first) {
  require(select_isa(isa_name(roof.isa)), isa_name(roof.isa));
  Network network(settings);
  size_t scratch_bytes = 0;
  size_t map_bytes = 0;
  for (Layer& layer : network.layers()) {
    const Conv2dShape& s = layer.shape;
    scratch_bytes = std::max(scratch_bytes, scratch_bytes_of(layer, settings));
    const auto input = static_cast<size_t>(s.in_frames * s.in_mel * s.in_channels);
    const auto output = static_cast<size_t>(conv2d_out_frames(s) * conv2d_out_mel(s) * s.out_channels);
    map_bytes = std::max({map_bytes, input * sizeof(float), output * sizeof(float)});
    if (!settings.codes) pack(&layer, settings);
  }
  const Memory scratch = aligned(scratch_bytes);
  const Memory maps[3] = {aligned(map_bytes), aligned(map_bytes), aligned(map_bytes)};
  constexpr int64_t kRounds = 200000;
  std::vector<int64_t> roof_ns;
  for (int repeat = -1; repeat < settings.repeats; ++repeat) {
    const int64_t sample = time_roof(roof, kRounds);
    run_once(&network, settings, maps, scratch, scratch_bytes);
    if (repeat >= 0) {
      roof_ns.push_back(sample);
      continue;
    }
    for (Layer& layer : network.layers()) layer.samples_ns.clear();  // warming up
  }
  std::printf("%s\n  {\"isa\": \"%s\", \"scratch_bytes\": %zu,\n   \"roof\": {\"integers\": %s, \"macs\": %lld, ",
              first ? "" : ",", isa_name(roof.isa), scratch_bytes, roof.integers ? "true" : "false",
              static_cast<long long>(kRounds * roof.macs_per_round));
  print_samples(roof_ns);
  std::printf("},\n   \"layers\": [");
  for (const Layer& layer : network.layers()) {
    std::printf("%s\n    {\"name\": \"%s\", \"kernel\": \"%s\", \"macs\": %lld, \"packed_bytes\": %zu, ",
                &layer == &network.layers().front() ? "" : ",", layer.name.c_str(), kernel_name_of(layer, settings),
                static_cast<long long>(layer.macs()), layer.packed_bytes);
    print_samples(layer.samples_ns);
    std::printf("}");
  }
  std::printf("]}");
}

bool parse(int argc, char** argv, Settings* settings) {
  for (int j = 1; j < argc; ++j) {
    const std::string option = argv[j];
    if (option == "--codes") {
      settings->codes = true;
      continue;
    }
    if (j + 1 == argc) return false;
    const char* value = argv[++j];
    if (option == "--mode") {
      settings->fast = std::strcmp(value, "fast") == 0;
      if (!settings->fast && std::strcmp(value, "exact") != 0) return false;
      continue;
    }
    if (option == "--isa") {
      settings->isa = value;
      continue;
    }
    if (option == "--program") {
      settings->program = value;
      continue;
    }
    const long number = std::strtol(value, nullptr, 10);
    if (number < 1 || number > 100000) return false;
    if (option == "--frames") {
      settings->frames = number;
    } else if (option == "--repeats") {
      settings->repeats = static_cast<int>(number);
    } else if (option == "--bits" && number <= 8) {
      settings->bits = static_cast<int32_t>(number);
    } else {
      return false;
    }
  }
  return true;
}

int run(int argc, char** argv) {
  Settings settings;
  if (!parse(argc, argv, &settings)) {
    std::fprintf(stderr,
                 "expected [--mode exact|fast] [--frames n] [--bits 1..8] [--repeats n] [--isa name|widest] [--codes] "
                 "[--program file]\n");
    return 2;
  }
  const bool widest = settings.isa != nullptr && std::strcmp(settings.isa, "widest") == 0;
  if (settings.isa != nullptr && !widest) require(select_isa(settings.isa), settings.isa);
  std::printf(
      "{\"network\": \"%s\", \"mode\": \"%s\", \"frames\": %lld, \"bits\": %d, \"weights\": \"%s\", \"isas\": [",
      settings.program != nullptr ? "program" : "resnet34", settings.fast ? "fast" : "exact",
      static_cast<long long>(settings.frames), settings.bits, settings.codes ? "codes" : "packed");
  bool first = true;
  for (const Roof* roof : kRoofs) {
    // Roofs are listed from the widest instruction set to the narrowest. An instruction set with two roofs has one for
    // each mode; the widest of mode exact is one of floats.
    const bool wanted = settings.isa == nullptr || (widest ? first && (settings.fast || !roof->integers)
                                                           : std::strcmp(settings.isa, isa_name(roof->isa)) == 0);
    if (!wanted || !isa_available(roof->isa) || !is_of_mode(*roof, settings.fast)) continue;
    run_isa(*roof, settings, first);
    first = false;
  }
  std::printf("]}\n");
  return 0;
}

}  // namespace
}  // namespace voxpress

int main(int argc, char** argv) { return voxpress::run(argc, argv); }
