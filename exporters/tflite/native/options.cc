#include "options.h"

#include <cstdint>
#include <cstring>

#include "pool/stats_pool.h"

namespace voxpress::tflite {
namespace {

struct Conv2dOptions {
  char magic[4];
  uint16_t version;
  uint8_t bits;
  uint8_t relu;
  int32_t kernel_frames, kernel_mel, stride_frames, stride_mel, pad_frames, pad_mel, groups, reserved;
};
static_assert(sizeof(Conv2dOptions) == 40, "the struct is the file format");

struct QuantizationOptions {
  float scale;
  int32_t zero;
};

struct Conv2dU8Options {
  char magic[4];
  uint16_t version;
  uint8_t bits;
  uint8_t relu;
  int32_t kernel_frames, kernel_mel, stride_frames, stride_mel, pad_frames, pad_mel, groups;
  uint8_t input, residual, output, algorithm;
  QuantizationOptions in, res, out;
};
static_assert(sizeof(Conv2dU8Options) == 64, "the struct is the file format");

struct StatsPoolOptions {
  char magic[4];
  uint16_t version;
  uint16_t reserved;
};
static_assert(sizeof(StatsPoolOptions) == 8, "the struct is the file format");

struct FilterbankOptions {
  char magic[4];
  uint16_t version;
  uint8_t window;
  uint8_t flags;
  int32_t sample_rate_hz, window_samples, shift_samples, num_mel_bins;
  float sample_scale, preemphasis, low_hz, high_hz;
  int32_t reserved;
};
static_assert(sizeof(FilterbankOptions) == 44, "the struct is the file format");

enum Flag : uint8_t { kRoundToPowerOfTwo = 1, kRemoveDcOffset = 2, kUsePower = 4, kUseLog = 8, kMeanNormalise = 16 };
constexpr uint8_t kAllFlags = 31;

template <typename Options>
const char* read(const void* bytes, size_t size, const char (&magic)[5], int32_t version, Options* options) {
  if (bytes == nullptr || size != sizeof(Options)) return "custom options have the wrong size";
  std::memcpy(options, bytes, sizeof(Options));
  if (std::memcmp(options->magic, magic, 4) != 0) return "custom options have the wrong magic";
  if (options->version != version) return status_text(Status::kBadVersion);
  return nullptr;
}

constexpr const char* kReserved = "custom options use a reserved field";

// The fields that both convolutions have.
template <typename Options>
const char* take_geometry(const Options& options, Conv2dShape* shape) {
  if (options.relu > 1) return "relu is neither 0 nor 1";
  shape->bits = options.bits;
  shape->relu = options.relu == 1;
  shape->kernel_frames = options.kernel_frames;
  shape->kernel_mel = options.kernel_mel;
  shape->stride_frames = options.stride_frames;
  shape->stride_mel = options.stride_mel;
  shape->pad_frames = options.pad_frames;
  shape->pad_mel = options.pad_mel;
  shape->groups = options.groups;
  return nullptr;
}

Quantization quantization_of(const QuantizationOptions& options) { return {options.scale, options.zero}; }

}  // namespace

const char* parse_conv2d_options(const void* bytes, size_t size, Conv2dShape* shape) {
  Conv2dOptions options;
  if (const char* problem = read(bytes, size, "VXC2", kConv2dVersion, &options)) return problem;
  return options.reserved != 0 ? kReserved : take_geometry(options, shape);
}

const char* parse_conv2d_u8_options(const void* bytes, size_t size, Conv2dU8Shape* shape) {
  Conv2dU8Options options;
  if (const char* problem = read(bytes, size, "VXU8", kConv2dU8Version, &options)) return problem;
  if (options.input > 1 || options.residual > 1 || options.output > 1) return "an element type is neither 0 nor 1";
  shape->input = static_cast<Element>(options.input);
  shape->residual = static_cast<Element>(options.residual);
  shape->output = static_cast<Element>(options.output);
  shape->in = quantization_of(options.in);
  shape->res = quantization_of(options.res);
  shape->out = quantization_of(options.out);
  shape->algorithm = static_cast<Algorithm>(options.algorithm);
  return take_geometry(options, &shape->conv);
}

const char* parse_stats_pool_options(const void* bytes, size_t size) {
  StatsPoolOptions options;
  if (const char* problem = read(bytes, size, "VXSP", kStatsPoolVersion, &options)) return problem;
  return options.reserved != 0 ? kReserved : nullptr;
}

const char* parse_fbank_options(const void* bytes, size_t size, FbankOptions* options) {
  FilterbankOptions raw;
  if (const char* problem = read(bytes, size, "VXFB", kFbankVersion, &raw)) return problem;
  if (raw.reserved != 0 || (raw.flags & ~kAllFlags) != 0) return kReserved;
  options->sample_rate_hz = raw.sample_rate_hz;
  options->window_samples = raw.window_samples;
  options->shift_samples = raw.shift_samples;
  options->num_mel_bins = raw.num_mel_bins;
  options->sample_scale = raw.sample_scale;
  options->preemphasis = raw.preemphasis;
  options->low_hz = raw.low_hz;
  options->high_hz = raw.high_hz;
  options->window = static_cast<FbankWindow>(raw.window);
  options->round_to_power_of_two = (raw.flags & kRoundToPowerOfTwo) != 0;
  options->remove_dc_offset = (raw.flags & kRemoveDcOffset) != 0;
  options->use_power = (raw.flags & kUsePower) != 0;
  options->use_log = (raw.flags & kUseLog) != 0;
  options->mean_normalise = (raw.flags & kMeanNormalise) != 0;
  return nullptr;
}

}  // namespace voxpress::tflite
