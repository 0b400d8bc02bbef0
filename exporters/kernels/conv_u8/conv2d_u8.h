// The one layer of a VoxPress network, in mode `fast` (integer activations, integer products):
//
//   real(x) = in.scale * (x - in.zero) if x is u8, x itself if it is float; likewise for the residual
//   y[n,t,f,o] = scale[o] * sum_{dt,df,i} real(x)[n, t*st+dt-pt, f*sf+df-pf, g*I+i] * W[o,dt,df,i] + bias[o]
//                + real(residual)[n,t,f,o]
//   out = relu(y) if it is float, min(max(round(y / out.scale) + out.zero, low), 255) if it is u8; ties go to the even
//         number, and low = out.zero after a ReLU, 0 otherwise
//
// Shapes are those of conv/conv2d.h, outside the input real(x) is zero. W is palette[codes] rounded to int8 multiples
// of max |palette| / 127 (of two-valued palettes nothing is rounded; float weights have a step for each output
// channel).
//
// Sums over u8 are exact integers, in 3x3 layers with stride 1 by Winograd's algorithm, whose transformed inputs are
// rounded to int8 with a step of their own for each tile and position. The portable kernels define every bit of the
// outcome; all others give the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/share.h"
#include "base/status.h"
#include "conv/conv2d.h"

namespace voxpress {

constexpr int32_t kConv2dU8Version = 1;

enum class Element : uint8_t { kF32 = 0, kU8 = 1 };

// Of a u8 tensor; ignored for float ones. 0 < scale < inf, 0 <= zero <= 255.
struct Quantization {
  float scale = 1.0f;
  int32_t zero = 0;
};

// kAuto: kWinograd4 or, for many channels, kWinograd2 where they can be, kDirect elsewhere. The Winograd ones want 3x3,
// stride 1, no groups and u8 input.
enum class Algorithm : uint8_t { kAuto = 0, kDirect = 1, kWinograd2 = 2, kWinograd4 = 3 };

struct Conv2dU8Shape {
  Conv2dShape conv;
  Quantization in, res, out;
  Element input = Element::kU8;
  Element residual = Element::kU8;
  Element output = Element::kU8;
  Algorithm algorithm = Algorithm::kAuto;
};

// Activations of a call: bytes, or 4-byte aligned floats. The residual may be absent.
struct Conv2dU8Tensors {
  const void* input = nullptr;
  const void* residual = nullptr;
  void* output = nullptr;
};

// Everything that can be wrong with a layer before it runs. Beside what conv2d_check finds: kBadQuantization,
// kBadAlgorithm (one that this layer cannot be run by), kBadShape also for sums of more than kMaxTerms products.
constexpr int64_t kMaxTerms = 65536;
Status conv2d_u8_check(const Conv2dU8Shape& shape, const Conv2dWeights& weights);

// Layers run from packed weights, as in conv/conv2d.h. Per weight these take 1 byte, of 3x3 layers with stride 1 4
// bytes (F(4x4)) or 1.8 (F(2x2)); output channels are rounded up. To save their memory, pack each layer before it runs
// into scratch that all layers share: conv2d_u8_run does so. All memory is the caller's and 64-byte aligned.

// Bytes of the packed weights: the same for every batch, frames and mel, a multiple of 64. 0 for a bad shape.
size_t conv2d_u8_packed_bytes(const Conv2dU8Shape& shape);

// Writes the packed weights; `packed_bytes` must be what conv2d_u8_packed_bytes says. Quantization, elements and
// algorithm go into them. Complete when all parts are done.
Status conv2d_u8_pack(const Conv2dU8Shape& shape, const Conv2dWeights& weights, void* packed, size_t packed_bytes,
                      const Share& share = {});

// Scratch of conv2d_u8_run_packed, of each part its own, in bytes, a multiple of 64. 0 for a bad shape.
size_t conv2d_u8_packed_scratch_bytes(const Conv2dU8Shape& shape);

// Checks shape, packed weights, scratch and share again; allocates nothing. The output must not overlap the input; it
// may be the residual itself, if both are of one element. kBadPacked if `packed` was made for another layer or, in
// whatever way, is not what the kernel of this machine wants.
Status conv2d_u8_run_packed(const Conv2dU8Shape& shape, const void* packed, size_t packed_bytes,
                            const Conv2dU8Tensors& tensors, void* scratch, size_t scratch_bytes,
                            const Share& share = {});

// Scratch of conv2d_u8_run: that of run_packed and the packed weights themselves. 0 for a bad shape.
size_t conv2d_u8_scratch_bytes(const Conv2dU8Shape& shape);

// Packs and runs.
Status conv2d_u8_run(const Conv2dU8Shape& shape, const Conv2dWeights& weights, const Conv2dU8Tensors& tensors,
                     void* scratch, size_t scratch_bytes);

// The kernel that runs a layer on this machine; "" for a bad shape.
const char* conv2d_u8_kernel_name(const Conv2dU8Shape& shape);

}  // namespace voxpress
