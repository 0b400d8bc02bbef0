#include "conv/geometry.h"

#include <cstdint>

#include "base/checked.h"

namespace voxpress {
namespace {

// Far above any real layer, and low enough that sums of a few of these stay inside 64 bits.
constexpr int64_t kMaxSize = int64_t{1} << 31;

bool in_range(int64_t value, int64_t least) { return value >= least && value <= kMaxSize; }

}  // namespace

bool geometry_ok(const Conv2dShape& s) {
  const int64_t sizes[] = {s.batch,         s.in_frames,  s.in_mel,        s.in_channels, s.out_channels,
                           s.kernel_frames, s.kernel_mel, s.stride_frames, s.stride_mel,  s.groups};
  for (const int64_t size : sizes) {
    if (!in_range(size, 1)) return false;
  }
  if (!in_range(s.pad_frames, 0) || !in_range(s.pad_mel, 0)) return false;
  if (s.in_channels % s.groups != 0 || s.out_channels % s.groups != 0) return false;
  if (s.kernel_frames > s.in_frames + 2 * s.pad_frames || s.kernel_mel > s.in_mel + 2 * s.pad_mel) return false;
  int64_t count;
  return element_count(&count, s.batch, s.in_frames, s.in_mel, s.in_channels) &&
         element_count(&count, s.batch, conv2d_out_frames(s), conv2d_out_mel(s), s.out_channels) &&
         element_count(&count, s.out_channels, s.kernel_frames, s.kernel_mel, s.in_channels / s.groups);
}

bool bits_ok(int32_t bits) { return (bits >= 1 && bits <= 8) || bits == 32; }

bool is_winograd_geometry(const Conv2dShape& s) {
  return s.kernel_frames == 3 && s.kernel_mel == 3 && s.stride_frames == 1 && s.stride_mel == 1 && s.groups == 1;
}

}  // namespace voxpress
