#include "conv_u8/conv2d_u8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/isa.h"
#include "base/usage.h"
#include "conv/geometry.h"
#include "conv/packed_header.h"
#include "conv_u8/variants.h"
#include "conv_u8/weights.h"

namespace voxpress {
namespace {

// Few channels do not pay for the transforms.
constexpr int64_t kFewestChannels = 16;
// From here on the 36 / 16 times larger weights of F(4x4) cost about what its products save, and more memory.
constexpr int64_t kMostWeights4 = 192 * 192;

bool can_winograd(const Conv2dU8Shape& s) { return is_winograd_geometry(s.conv) && s.input == Element::kU8; }

bool wants_winograd(const Conv2dU8Shape& s) {
  return s.algorithm == Algorithm::kAuto && s.conv.in_channels >= kFewestChannels &&
         s.conv.out_channels >= kFewestChannels;
}

bool quantization_ok(const Quantization& q, Element element) {
  return element == Element::kF32 || (q.scale > 0.0f && std::isfinite(q.scale) && q.zero >= 0 && q.zero <= 255);
}

// Of everything but the weights.
Status shape_status(const Conv2dU8Shape& s) {
  if (!bits_ok(s.conv.bits)) return Status::kBadBits;
  if (!geometry_ok(s.conv)) return Status::kBadShape;
  // Of three factors below 2^31 the last is at most kMaxElements: the product of the first two has been checked with
  // it.
  if (s.conv.kernel_frames * s.conv.kernel_mel * (s.conv.in_channels / s.conv.groups) > kMaxTerms) {
    return Status::kBadShape;
  }
  for (const Element element : {s.input, s.residual, s.output}) {
    if (element != Element::kF32 && element != Element::kU8) return Status::kBadQuantization;
  }
  if (!quantization_ok(s.in, s.input) || !quantization_ok(s.res, s.residual) || !quantization_ok(s.out, s.output)) {
    return Status::kBadQuantization;
  }
  switch (s.algorithm) {
    case Algorithm::kAuto:
    case Algorithm::kDirect:
      return Status::kOk;
    case Algorithm::kWinograd2:
    case Algorithm::kWinograd4:
      return can_winograd(s) ? Status::kOk : Status::kBadAlgorithm;
  }
  return Status::kBadAlgorithm;
}

struct Choice {
  Kernel id;
  const Conv2dU8Kernel* kernel;
};

constexpr Choice kKernels[] = {
#define VOXPRESS_CONV2DU8_KERNEL(name) {Kernel::name, &name},
#include "kernels.inc"
};

// The first kernel of the table that takes the layer and that the selected instruction set includes. The shape must be
// a good one.
const Choice& choose(const Conv2dU8Shape& shape) {
  const Isa level = selected_isa();
  const Choice* choice = kKernels;
  while (!isa_includes(level, choice->kernel->isa) || !choice->kernel->takes(shape)) {
    ++choice;  // ends: the portable direct kernel takes every layer
  }
  return *choice;
}

constexpr uint32_t kPackedMagic = 0x38505856;  // "VXP8"

// What packed weights begin with. The arrays of Finish follow, then the kernel's own part.
struct PackedU8Header {
  PackedHeader layer;
  float scales[3];  // of input, residual and output
  int32_t zeros[3];
  uint32_t elements;
  uint32_t relu;
  // Not compared: what the weights say.
  float window_ratio;  // 0: windows do not count
  uint32_t unused[7];
};
static_assert(sizeof(PackedU8Header) == 128, "what follows it must stay 64-byte aligned");

PackedU8Header header_of(const Conv2dU8Shape& s, const Choice& choice) {
  PackedU8Header header = {};
  header.layer = packed_header(kPackedMagic, s.conv, choice.id, conv2d_u8_packed_bytes(s));
  const Quantization* quantizations[] = {&s.in, &s.res, &s.out};
  const Element elements[] = {s.input, s.residual, s.output};
  for (int j = 0; j < 3; ++j) {
    const bool is_u8 = elements[j] == Element::kU8;
    header.scales[j] = is_u8 ? quantizations[j]->scale : 1.0f;
    header.zeros[j] = is_u8 ? quantizations[j]->zero : 0;
    header.elements |= static_cast<uint32_t>(elements[j]) << j;
  }
  header.relu = s.conv.relu ? 1 : 0;
  return header;
}

int64_t padded_channels(const Conv2dU8Shape& s) {
  return (s.conv.out_channels + kU8ChannelRound - 1) / kU8ChannelRound * kU8ChannelRound;
}

constexpr int kArrays = 3;  // multiplier, offset, bias

size_t arrays_bytes(const Conv2dU8Shape& s) {
  return static_cast<size_t>(padded_channels(s)) * kArrays * sizeof(float);
}

// Writes the arrays of Finish.
void fill_arrays(const Conv2dU8Shape& s, const Conv2dWeights& weights, const Int8Palette& palette, float* multiplier) {
  const int64_t channels = padded_channels(s);
  float* offset = multiplier + channels;
  float* bias = offset + channels;
  std::fill(multiplier, multiplier + kArrays * channels, 0.0f);
  const double out_scale = s.output == Element::kU8 ? static_cast<double>(s.out.scale) : 1.0;
  const double out_zero = s.output == Element::kU8 ? s.out.zero : 0;
  for (int64_t o = 0; o < s.conv.out_channels; ++o) {
    multiplier[o] = channel_multiplier(s, weights, palette, o);
    offset[o] = static_cast<float>(channel_scale(s, weights, o) * static_cast<double>(palette.middle));
    bias[o] = static_cast<float>(static_cast<double>(float_at(weights.bias, o)) / out_scale + out_zero);
  }
}

Finish finish_of(const Conv2dU8Shape& s, const float* arrays, float window_ratio, bool has_residual) {
  const int64_t channels = padded_channels(s);
  const float out_scale = s.output == Element::kU8 ? s.out.scale : 1.0f;
  Finish finish;
  finish.multiplier = arrays;
  finish.offset = window_ratio != 0.0f ? arrays + channels : nullptr;
  finish.window_ratio = window_ratio;
  finish.bias = arrays + 2 * channels;
  finish.res_multiplier = (s.residual == Element::kU8 ? s.res.scale : 1.0f) / out_scale;
  finish.residual_shift = 0.0f;
  if (has_residual && s.residual == Element::kU8) {
    finish.residual_shift = -static_cast<float>(s.res.zero) * finish.res_multiplier;
  }
  finish.low = s.conv.relu ? static_cast<float>(s.out.zero) : 0.0f;
  return finish;
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 64 == 0; }

}  // namespace

bool winograd4_u8_takes(const Conv2dU8Shape& s) {
  if (!can_winograd(s)) return false;
  return s.algorithm == Algorithm::kWinograd4 ||
         (wants_winograd(s) && s.conv.in_channels <= kMostWeights4 / s.conv.out_channels);
}

bool winograd2_u8_takes(const Conv2dU8Shape& s) {
  return can_winograd(s) && (s.algorithm == Algorithm::kWinograd2 || wants_winograd(s));
}

Status conv2d_u8_check(const Conv2dU8Shape& shape, const Conv2dWeights& weights) {
  const Status status = shape_status(shape);
  return status == Status::kOk ? conv2d_check(shape.conv, weights) : status;
}

size_t conv2d_u8_packed_bytes(const Conv2dU8Shape& shape) {
  if (shape_status(shape) != Status::kOk) return 0;
  return sizeof(PackedU8Header) + arrays_bytes(shape) +
         static_cast<size_t>(choose(shape).kernel->prepared_bytes(shape));
}

Status conv2d_u8_pack(const Conv2dU8Shape& shape, const Conv2dWeights& weights, void* packed, size_t packed_bytes,
                      const Share& share) {
  const Status status = conv2d_u8_check(shape, weights);
  if (status != Status::kOk) return status;
  if (!share_ok(share)) return Status::kBadShare;
  if (packed == nullptr) return Status::kNullPointer;
  const Choice& choice = choose(shape);
  PackedU8Header header = header_of(shape, choice);
  if (packed_bytes != header.layer.total_bytes || !is_aligned(packed)) return Status::kBadBufferSize;
  auto* bytes = static_cast<unsigned char*>(packed);
  Int8Palette palette;
  load_int8_palette(shape.conv, weights, &palette);
  if (share.part == 0) {
    header.window_ratio = palette.middle != 0.0f ? palette.middle / palette.step : 0.0f;
    std::memcpy(bytes, &header, sizeof(header));
    fill_arrays(shape, weights, palette, reinterpret_cast<float*>(bytes + sizeof(header)));
  }
  choice.kernel->pack({&shape, &weights, &palette, share, bytes + sizeof(header) + arrays_bytes(shape)});
  return Status::kOk;
}

size_t conv2d_u8_packed_scratch_bytes(const Conv2dU8Shape& shape) {
  if (shape_status(shape) != Status::kOk) return 0;
  return static_cast<size_t>(std::max<int64_t>(64, choose(shape).kernel->scratch_bytes(shape)));
}

Status conv2d_u8_run_packed(const Conv2dU8Shape& shape, const void* packed, size_t packed_bytes,
                            const Conv2dU8Tensors& tensors, void* scratch, size_t scratch_bytes, const Share& share) {
  const Status status = shape_status(shape);
  if (status != Status::kOk) return status;
  if (!share_ok(share)) return Status::kBadShare;
  if (packed == nullptr || tensors.input == nullptr || tensors.output == nullptr || scratch == nullptr) {
    return Status::kNullPointer;
  }
  const Choice& choice = choose(shape);
  PackedU8Header expected = header_of(shape, choice);
  if (packed_bytes != expected.layer.total_bytes || !is_aligned(packed)) return Status::kBadPacked;
  const auto* bytes = static_cast<const unsigned char*>(packed);
  expected.window_ratio = static_cast<const PackedU8Header*>(packed)->window_ratio;
  if (shape.conv.bits != 1 && expected.window_ratio != 0.0f) return Status::kBadPacked;
  if (std::memcmp(packed, &expected, sizeof(expected)) != 0) return Status::kBadPacked;
  if (scratch_bytes < conv2d_u8_packed_scratch_bytes(shape) || !is_aligned(scratch)) return Status::kBadBufferSize;
  const auto* arrays = reinterpret_cast<const float*>(bytes + sizeof(expected));
  choice.kernel->run({&shape, bytes + sizeof(expected) + arrays_bytes(shape), &tensors,
                      finish_of(shape, arrays, expected.window_ratio, tensors.residual != nullptr), share,
                      static_cast<unsigned char*>(scratch)});
  mark_used(choice.id);
  return Status::kOk;
}

size_t conv2d_u8_scratch_bytes(const Conv2dU8Shape& shape) {
  return conv2d_u8_packed_bytes(shape) + conv2d_u8_packed_scratch_bytes(shape);
}

Status conv2d_u8_run(const Conv2dU8Shape& shape, const Conv2dWeights& weights, const Conv2dU8Tensors& tensors,
                     void* scratch, size_t scratch_bytes) {
  Status status = conv2d_u8_check(shape, weights);
  if (status != Status::kOk) return status;
  if (scratch == nullptr) return Status::kNullPointer;
  if (scratch_bytes < conv2d_u8_scratch_bytes(shape)) return Status::kBadBufferSize;
  const size_t packed_bytes = conv2d_u8_packed_bytes(shape);
  status = conv2d_u8_pack(shape, weights, scratch, packed_bytes);
  if (status != Status::kOk) return status;
  return conv2d_u8_run_packed(shape, scratch, packed_bytes, tensors,
                              static_cast<unsigned char*>(scratch) + packed_bytes, scratch_bytes - packed_bytes);
}

const char* conv2d_u8_kernel_name(const Conv2dU8Shape& shape) {
  return shape_status(shape) == Status::kOk ? kernel_name(choose(shape).id) : "";
}

}  // namespace voxpress
