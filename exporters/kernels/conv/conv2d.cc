#include "conv/conv2d.h"

#include <cstdint>

#include "base/checked.h"
#include "base/usage.h"
#include "conv/variants.h"

namespace voxpress {
namespace {

// Far above any real layer, and low enough that sums of a few of these stay inside 64 bits.
constexpr int64_t kMaxSize = int64_t{1} << 31;

bool in_range(int64_t value, int64_t least) { return value >= least && value <= kMaxSize; }

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

bool is_depthwise(const Conv2dShape& s) { return s.groups == s.in_channels && s.groups == s.out_channels; }

struct Choice {
  Kernel id;
  Conv2dKernel run;
};

constexpr Choice kConv2dKernels[] = {
#define VOXPRESS_CONV2D_KERNEL(name) {Kernel::name, name},
#include "kernels.inc"
};
constexpr Choice kDepthwiseKernels[] = {
#define VOXPRESS_DWCONV2D_KERNEL(name) {Kernel::name, name},
#include "kernels.inc"
};

const Choice& choose(const Conv2dShape& shape) {
  return is_depthwise(shape) ? kDepthwiseKernels[0] : kConv2dKernels[0];
}

}  // namespace

int64_t conv2d_out_frames(const Conv2dShape& s) {
  return (s.in_frames + 2 * s.pad_frames - s.kernel_frames) / s.stride_frames + 1;
}

int64_t conv2d_out_mel(const Conv2dShape& s) { return (s.in_mel + 2 * s.pad_mel - s.kernel_mel) / s.stride_mel + 1; }

Status conv2d_check(const Conv2dShape& shape, const Conv2dWeights& weights) {
  const bool palettized = shape.bits >= 1 && shape.bits <= 8;
  if (!palettized && shape.bits != 32) return Status::kBadBits;
  if (!geometry_ok(shape)) return Status::kBadShape;
  if (weights.codes == nullptr || weights.scale == nullptr || weights.bias == nullptr ||
      (palettized && weights.palette == nullptr)) {
    return Status::kNullPointer;
  }
  const uint64_t weight_count = static_cast<uint64_t>(shape.out_channels) * static_cast<uint64_t>(shape.kernel_frames) *
                                static_cast<uint64_t>(shape.kernel_mel) *
                                static_cast<uint64_t>(shape.in_channels / shape.groups);
  const uint64_t channel_bytes = static_cast<uint64_t>(shape.out_channels) * sizeof(float);
  const uint64_t palette_bytes = palettized ? sizeof(float) << shape.bits : 0;
  if (weights.codes_bytes != (weight_count * static_cast<uint64_t>(shape.bits) + 7) / 8 ||
      weights.palette_bytes != palette_bytes || weights.scale_bytes != channel_bytes ||
      weights.bias_bytes != channel_bytes) {
    return Status::kBadBufferSize;
  }
  return Status::kOk;
}

size_t conv2d_scratch_bytes(const Conv2dShape& shape) {
  if (!geometry_ok(shape)) return 0;
  return is_depthwise(shape) ? dwconv2d_portable_scratch_bytes(shape) : conv2d_portable_scratch_bytes(shape);
}

Status conv2d_run(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors, void* scratch,
                  size_t scratch_bytes) {
  const Status status = conv2d_check(shape, weights);
  if (status != Status::kOk) return status;
  if (tensors.input == nullptr || tensors.output == nullptr || scratch == nullptr) return Status::kNullPointer;
  if (scratch_bytes < conv2d_scratch_bytes(shape) || reinterpret_cast<uintptr_t>(scratch) % 64 != 0) {
    return Status::kBadBufferSize;
  }
  const Choice& choice = choose(shape);
  choice.run(shape, weights, tensors, static_cast<unsigned char*>(scratch));
  mark_used(choice.id);
  return Status::kOk;
}

const char* conv2d_kernel_name() { return kernel_name(kConv2dKernels[0].id); }

}  // namespace voxpress
