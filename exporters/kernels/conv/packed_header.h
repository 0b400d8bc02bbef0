// What packed weights begin with, so that those of another layer, kernel or version are refused.
#pragma once

#include <cstdint>

#include "base/usage.h"
#include "conv/conv2d.h"

namespace voxpress {

constexpr uint32_t kPackedVersion = 2;

struct PackedHeader {
  uint32_t magic;
  uint32_t version;
  uint32_t kernel;
  int32_t bits;
  int64_t in_channels;
  int64_t out_channels;
  int64_t kernel_frames;
  int64_t kernel_mel;
  int64_t groups;
  uint64_t total_bytes;
};
static_assert(sizeof(PackedHeader) == 64, "what follows it must stay 64-byte aligned");

inline PackedHeader packed_header(uint32_t magic, const Conv2dShape& s, Kernel kernel, uint64_t total_bytes) {
  return {magic,           kPackedVersion, static_cast<uint32_t>(kernel),
          s.bits,          s.in_channels,  s.out_channels,
          s.kernel_frames, s.kernel_mel,   s.groups,
          total_bytes};
}

}  // namespace voxpress
