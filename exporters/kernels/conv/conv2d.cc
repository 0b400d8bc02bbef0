#include "conv/conv2d.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/isa.h"
#include "base/usage.h"
#include "conv/geometry.h"
#include "conv/packed_header.h"
#include "conv/variants.h"

namespace voxpress {
namespace {

struct Choice {
  Kernel id;
  const Conv2dKernel* kernel;
};

constexpr Choice kKernels[] = {
#define VOXPRESS_CONV2D_KERNEL(name) {Kernel::name, &name},
#include "kernels.inc"
};

// The first kernel of the table that takes the layer and that the selected instruction set includes. The shape must be
// a good one.
const Choice& choose(const Conv2dShape& shape, bool packed) {
  const Isa level = selected_isa();
  const Choice* choice = kKernels;
  while (!isa_includes(level, choice->kernel->isa) || (choice->kernel->pack != nullptr) != packed ||
         !choice->kernel->takes(shape)) {
    ++choice;  // ends: the portable direct kernels take every layer
  }
  return *choice;
}

constexpr uint32_t kPackedMagic = 0x57505856;  // "VXPW"

// Scale and bias follow the header, padded with zeros, then the kernel's own part.
PackedHeader header_of(const Conv2dShape& s, const Choice& choice) {
  return packed_header(kPackedMagic, s, choice.id, conv2d_packed_bytes(s));
}

int64_t channel_floats(const Conv2dShape& s) {
  return (s.out_channels + kChannelRound - 1) / kChannelRound * kChannelRound;
}

// Scale, then bias, each padded with zeros. Returns the end.
float* copy_scale_and_bias(const Conv2dShape& s, const Conv2dWeights& weights, float* target) {
  for (const void* source : {weights.scale, weights.bias}) {
    std::memcpy(target, source, static_cast<size_t>(s.out_channels) * sizeof(float));
    std::fill(target + s.out_channels, target + channel_floats(s), 0.0f);
    target += channel_floats(s);
  }
  return target;
}

size_t scale_and_bias_bytes(const Conv2dShape& s) { return static_cast<size_t>(channel_floats(s)) * 2 * sizeof(float); }

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 64 == 0; }

Status check_buffers(const Conv2dTensors& tensors, const void* scratch, size_t scratch_bytes, size_t needed_bytes) {
  if (tensors.input == nullptr || tensors.output == nullptr || scratch == nullptr) return Status::kNullPointer;
  return scratch_bytes < needed_bytes || !is_aligned(scratch) ? Status::kBadBufferSize : Status::kOk;
}

}  // namespace

int64_t conv2d_out_frames(const Conv2dShape& s) {
  return (s.in_frames + 2 * s.pad_frames - s.kernel_frames) / s.stride_frames + 1;
}

int64_t conv2d_out_mel(const Conv2dShape& s) { return (s.in_mel + 2 * s.pad_mel - s.kernel_mel) / s.stride_mel + 1; }

Status conv2d_check(const Conv2dShape& shape, const Conv2dWeights& weights) {
  if (!bits_ok(shape.bits)) return Status::kBadBits;
  const bool palettized = shape.bits != 32;
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
  return scale_and_bias_bytes(shape) + static_cast<size_t>(choose(shape, false).kernel->scratch_bytes(shape));
}

Status conv2d_run(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors, void* scratch,
                  size_t scratch_bytes, const Share& share) {
  Status status = conv2d_check(shape, weights);
  if (status != Status::kOk) return status;
  if (!share_ok(share)) return Status::kBadShare;
  const Choice& choice = choose(shape, false);
  status = check_buffers(tensors, scratch, scratch_bytes,
                         scale_and_bias_bytes(shape) + static_cast<size_t>(choice.kernel->scratch_bytes(shape)));
  if (status != Status::kOk) return status;
  float* scale = static_cast<float*>(scratch);
  float* rest = copy_scale_and_bias(shape, weights, scale);
  choice.kernel->run({&shape, &weights, scale, scale + channel_floats(shape), nullptr, &tensors,
                      reinterpret_cast<unsigned char*>(rest), share});
  mark_used(choice.id);
  return Status::kOk;
}

size_t conv2d_packed_bytes(const Conv2dShape& shape) {
  if (!geometry_ok(shape)) return 0;
  return sizeof(PackedHeader) + scale_and_bias_bytes(shape) +
         static_cast<size_t>(choose(shape, true).kernel->prepared_floats(shape)) * sizeof(float);
}

Status conv2d_pack(const Conv2dShape& shape, const Conv2dWeights& weights, void* packed, size_t packed_bytes) {
  const Status status = conv2d_check(shape, weights);
  if (status != Status::kOk) return status;
  if (packed == nullptr) return Status::kNullPointer;
  const Choice& choice = choose(shape, true);
  const PackedHeader header = header_of(shape, choice);
  if (packed_bytes != header.total_bytes || !is_aligned(packed)) return Status::kBadBufferSize;
  auto* bytes = static_cast<unsigned char*>(packed);
  std::memcpy(bytes, &header, sizeof(header));
  float* scale = reinterpret_cast<float*>(bytes + sizeof(header));
  choice.kernel->pack(shape, weights, copy_scale_and_bias(shape, weights, scale));
  return Status::kOk;
}

size_t conv2d_packed_scratch_bytes(const Conv2dShape& shape) {
  if (!geometry_ok(shape)) return 0;
  const int64_t bytes = choose(shape, true).kernel->scratch_bytes(shape);
  return static_cast<size_t>(std::max<int64_t>(64, bytes));  // never 0: that says that the shape is bad
}

Status conv2d_run_packed(const Conv2dShape& shape, const void* packed, size_t packed_bytes,
                         const Conv2dTensors& tensors, void* scratch, size_t scratch_bytes, const Share& share) {
  if (!bits_ok(shape.bits)) return Status::kBadBits;
  if (!geometry_ok(shape)) return Status::kBadShape;
  if (!share_ok(share)) return Status::kBadShare;
  if (packed == nullptr) return Status::kNullPointer;
  const Choice& choice = choose(shape, true);
  const PackedHeader expected = header_of(shape, choice);
  if (packed_bytes != expected.total_bytes || !is_aligned(packed) ||
      std::memcmp(packed, &expected, sizeof(expected)) != 0) {
    return Status::kBadPacked;
  }
  const Status status = check_buffers(tensors, scratch, scratch_bytes, conv2d_packed_scratch_bytes(shape));
  if (status != Status::kOk) return status;
  const float* scale = reinterpret_cast<const float*>(static_cast<const unsigned char*>(packed) + sizeof(expected));
  const float* bias = scale + channel_floats(shape);
  choice.kernel->run({&shape, nullptr, scale, bias, bias + channel_floats(shape), &tensors,
                      static_cast<unsigned char*>(scratch), share});
  mark_used(choice.id);
  return Status::kOk;
}

const char* conv2d_kernel_name(const Conv2dShape& shape) {
  return geometry_ok(shape) ? kernel_name(choose(shape, false).id) : "";
}

const char* conv2d_packed_kernel_name(const Conv2dShape& shape) {
  return geometry_ok(shape) ? kernel_name(choose(shape, true).id) : "";
}

}  // namespace voxpress
