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

struct StatsPoolOptions {
  char magic[4];
  uint16_t version;
  uint16_t reserved;
};
static_assert(sizeof(StatsPoolOptions) == 8, "the struct is the file format");

template <typename Options>
const char* read(const void* bytes, size_t size, const char (&magic)[5], int32_t version, Options* options) {
  if (bytes == nullptr || size != sizeof(Options)) return "custom options have the wrong size";
  std::memcpy(options, bytes, sizeof(Options));
  if (std::memcmp(options->magic, magic, 4) != 0) return "custom options have the wrong magic";
  if (options->version != version) return status_text(Status::kBadVersion);
  if (options->reserved != 0) return "custom options use a reserved field";
  return nullptr;
}

}  // namespace

const char* parse_conv2d_options(const void* bytes, size_t size, Conv2dShape* shape) {
  Conv2dOptions options;
  if (const char* problem = read(bytes, size, "VXC2", kConv2dVersion, &options)) return problem;
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

const char* parse_stats_pool_options(const void* bytes, size_t size) {
  StatsPoolOptions options;
  return read(bytes, size, "VXSP", kStatsPoolVersion, &options);
}

}  // namespace voxpress::tflite
