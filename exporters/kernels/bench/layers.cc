// Times every layer of a network, instruction set by instruction set, and writes JSON:
//
//   voxpress_kernel_bench [--network resnet34|dfresnet56] [--mode exact|fast] [--frames 200] [--bits 4] [--repeats 15]
//                         [--isa avx512vnni] [--threads 1] [--codes]
//
// Layers run in the order of the network, each instance on weights of its own, so that caches see what they see in a
// model. Raw samples in nanoseconds, of this thread's CPU time if there is only one; the roof is that of a loop of
// multiply-adds in registers, timed before each repeat.
// --codes runs from codes instead of packed weights. In mode fast, activations are bytes from the stem on to the last
// convolution.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "base/isa.h"
#include "base/status.h"
#include "bench/network.h"
#include "bench/roof.h"
#include "prepared/packed_store.h"
#include "prepared/run_layer.h"

namespace voxpress {

#define VOXPRESS_ROOF(name) extern const Roof name;
#if defined(__x86_64__)
VOXPRESS_ROOF(roof_avx512vnni)
VOXPRESS_ROOF(roof_avx512)
VOXPRESS_ROOF(roof_avx2)
#endif
#if defined(__aarch64__)
VOXPRESS_ROOF(roof_neon)
#endif
VOXPRESS_ROOF(roof_portable)
#undef VOXPRESS_ROOF

namespace {

constexpr const Roof* kRoofs[] = {
#if defined(__x86_64__)
    &roof_avx512vnni, &roof_avx512, &roof_avx2,
#endif
#if defined(__aarch64__)
    &roof_neon,
#endif
    &roof_portable};

struct Settings {
  std::string network = "resnet34";
  int64_t frames = 200;
  int32_t bits = 4;
  int32_t threads = 1;
  int repeats = 15;
  const char* isa = nullptr;
  bool codes = false;
  bool fast = false;
};

// On a machine that others use too, wall time counts their turns as well; but only it knows of several threads.
int64_t now_ns(int32_t threads) {
  timespec time;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return int64_t{1000000000} * time.tv_sec + time.tv_nsec;
}

void require(Status status, const std::string& what) {
  if (status == Status::kOk) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), status_text(status));
  std::exit(1);
}

size_t scratch_bytes_of(const Layer& layer, const Settings& settings) {
  return settings.fast ? layer_scratch_bytes(layer.u8, !settings.codes, settings.threads)
                       : layer_scratch_bytes(layer.shape, !settings.codes, settings.threads);
}

void pack(Layer* layer, const Settings& settings, PackedStore* store) {
  Status status;
  layer->packed.reset(settings.fast ? store->get(layer->u8, layer->weights(), &status)
                                    : store->get(layer->shape, layer->weights(), &status));
  require(status, layer->name);
}

const char* kernel_name_of(const Layer& layer, const Settings& settings) {
  if (settings.fast) return conv2d_u8_kernel_name(layer.u8);
  return settings.codes ? conv2d_kernel_name(layer.shape) : conv2d_packed_kernel_name(layer.shape);
}

// Inputs, residuals and outputs take turns on two buffers, as they do in a planned model; the residual of the last
// convolution, whose output is larger in mode fast, has a buffer of its own.
struct Buffers {
  Memory maps[3];
  Memory scratch;
  size_t scratch_bytes;
};

template <typename Shape, typename Tensors>
Status run_in(const Shape& shape, const Layer& layer, const Settings& settings, const Tensors& tensors,
              const Buffers& buffers) {
  const Conv2dWeights weights = layer.weights();
  LayerCall<Shape, Tensors> call;
  call.shape = &shape;
  call.weights = &weights;
  call.packed = layer.packed.get();
  call.tensors = &tensors;
  call.scratch = buffers.scratch.get();
  call.scratch_bytes = buffers.scratch_bytes;
  call.threads = settings.threads;
  return run_layer(call);
}

Status run_layer_once(const Layer& layer, const Settings& settings, const Buffers& buffers, int turn) {
  void* input = buffers.maps[turn].get();
  void* output = buffers.maps[1 - turn].get();
  if (!settings.fast) {
    Conv2dTensors tensors;
    tensors.input = static_cast<const float*>(input);
    tensors.output = static_cast<float*>(output);
    if (layer.residual) tensors.residual = tensors.output;
    return run_in(layer.shape, layer, settings, tensors, buffers);
  }
  const void* residual = layer.u8.output == Element::kU8 ? output : buffers.maps[2].get();
  const Conv2dU8Tensors tensors{input, layer.residual ? residual : nullptr, output};
  return run_in(layer.u8, layer, settings, tensors, buffers);
}

// Times each layer once.
void run_once(Network* network, const Settings& settings, const Buffers& buffers) {
  const Conv2dShape& first = network->layers().front().shape;
  auto* features = reinterpret_cast<float*>(buffers.maps[0].get());
  for (int64_t j = 0; j < first.in_frames * first.in_mel; ++j) features[j] = static_cast<float>(j % 7) - 3.0f;
  int turn = 0;
  for (Layer& layer : network->layers()) {
    const int64_t begin = now_ns(settings.threads);
    const Status status = run_layer_once(layer, settings, buffers, turn);
    layer.samples_ns.push_back(now_ns(settings.threads) - begin);
    require(status, layer.name);
    turn = 1 - turn;
  }
}

int64_t time_roof(const Roof& roof, int64_t rounds) {
  const int64_t begin = now_ns(1);
  volatile float sink = roof.loop(rounds, 1e-3f);
  static_cast<void>(sink);
  return now_ns(1) - begin;
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
  Network network(settings.network, settings.frames, settings.bits);
  PackedStore store(SIZE_MAX);
  Buffers buffers = {};
  size_t map_bytes = 0;
  for (Layer& layer : network.layers()) {
    const Conv2dShape& s = layer.shape;
    buffers.scratch_bytes = std::max(buffers.scratch_bytes, scratch_bytes_of(layer, settings));
    const auto input = static_cast<size_t>(s.in_frames * s.in_mel * s.in_channels);
    const auto output = static_cast<size_t>(conv2d_out_frames(s) * conv2d_out_mel(s) * s.out_channels);
    map_bytes = std::max({map_bytes, input * sizeof(float), output * sizeof(float)});
    if (!settings.codes) pack(&layer, settings, &store);
  }
  buffers.scratch = aligned(buffers.scratch_bytes);
  for (Memory& map : buffers.maps) map = aligned(map_bytes);
  constexpr int64_t kRounds = 200000;
  std::vector<int64_t> roof_ns;
  for (int repeat = -1; repeat < settings.repeats; ++repeat) {
    const int64_t sample = time_roof(roof, kRounds);
    run_once(&network, settings, buffers);
    if (repeat >= 0) {
      roof_ns.push_back(sample);
      continue;
    }
    for (Layer& layer : network.layers()) layer.samples_ns.clear();  // warming up
  }
  std::printf("%s\n  {\"isa\": \"%s\", \"scratch_bytes\": %zu,\n   \"roof\": {\"macs\": %lld, ", first ? "" : ",",
              isa_name(roof.isa), buffers.scratch_bytes, static_cast<long long>(kRounds * roof.macs_per_round));
  print_samples(roof_ns);
  std::printf("},\n   \"layers\": [");
  for (const Layer& layer : network.layers()) {
    std::printf("%s\n    {\"name\": \"%s\", \"kernel\": \"%s\", \"macs\": %lld, \"packed_bytes\": %zu, ",
                &layer == &network.layers().front() ? "" : ",", layer.name.c_str(), kernel_name_of(layer, settings),
                static_cast<long long>(layer.macs()), layer.packed == nullptr ? 0 : layer.packed->size_bytes());
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
    if (option == "--network") {
      settings->network = value;
      if (settings->network != "resnet34" && settings->network != "dfresnet56") return false;
      continue;
    }
    if (option == "--isa") {
      settings->isa = value;
      continue;
    }
    const long number = std::strtol(value, nullptr, 10);
    if (number < 1 || number > 100000) return false;
    if (option == "--frames") {
      settings->frames = number;
    } else if (option == "--threads" && number <= 64) {
      settings->threads = static_cast<int32_t>(number);
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
    std::fprintf(
        stderr,
        "expected [--network resnet34|dfresnet56] [--mode exact|fast] [--frames n] [--bits 1..8] [--repeats n] "
        "[--isa name] [--threads n] [--codes]\n");
    return 2;
  }
  if (settings.isa != nullptr) require(select_isa(settings.isa), settings.isa);
  std::printf("{\"network\": \"%s\", \"mode\": \"%s\", \"frames\": %lld, \"bits\": %d, \"threads\": %d, ",
              settings.network.c_str(), settings.fast ? "fast" : "exact", static_cast<long long>(settings.frames),
              settings.bits, settings.threads);
  std::printf("\"weights\": \"%s\", \"isas\": [", settings.codes ? "codes" : "packed");
  bool first = true;
  for (const Roof* roof : kRoofs) {
    const bool wanted = settings.isa == nullptr || std::strcmp(settings.isa, isa_name(roof->isa)) == 0;
    if (!wanted || !isa_available(roof->isa)) continue;
    run_isa(*roof, settings, first);
    first = false;
  }
  std::printf("]}\n");
  return 0;
}

}  // namespace
}  // namespace voxpress

int main(int argc, char** argv) { return voxpress::run(argc, argv); }
