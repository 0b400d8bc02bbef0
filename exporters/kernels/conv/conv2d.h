// The one layer of a VoxPress network, in mode `exact` (fp32 activations):
//
//   out[n,t,f,o] = act(scale[o] * sum_{dt,df,i} x[n, t*st+dt-pt, f*sf+df-pf, g*I+i] * W[o,dt,df,i] + bias[o]
//                      + residual[n,t,f,o]),   W = palette[codes], I = in_channels / groups, g = o / (O / groups)
//
// Axis 1 is time (frames), axis 2 is mel, the last axis is channels and contiguous. A linear layer is the 1x1 case on
// [N, 1, 1, K]. Outside the input reads as zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/share.h"
#include "base/status.h"

namespace voxpress {

constexpr int32_t kConv2dVersion = 1;

// Geometry of a call. Everything but batch and frames is fixed when the model is exported.
struct Conv2dShape {
  int64_t batch = 0;
  int64_t in_frames = 0, in_mel = 0, in_channels = 0;
  int64_t out_channels = 0;
  int64_t kernel_frames = 1, kernel_mel = 1;
  int64_t stride_frames = 1, stride_mel = 1;
  int64_t pad_frames = 0, pad_mel = 0;
  int64_t groups = 1;
  int32_t bits = 0;  // 1..8: palettized; 32: `codes` holds the float weights themselves
  bool relu = false;
};

// Weights as they lie in the file. None of the pointers needs any alignment.
struct Conv2dWeights {
  // Weight k in bits [k*bits, (k+1)*bits) of a little-endian bit stream; order [O,dt,df,I].
  const void* codes = nullptr;
  size_t codes_bytes = 0;
  const void* palette = nullptr;  // 2^bits floats (absent for 32 bits)
  size_t palette_bytes = 0;
  const void* scale = nullptr;  // out_channels floats
  size_t scale_bytes = 0;
  const void* bias = nullptr;  // out_channels floats
  size_t bias_bytes = 0;
};

// Activations of a call; float, 4-byte aligned.
struct Conv2dTensors {
  const float* input = nullptr;
  const float* residual = nullptr;  // may be null
  float* output = nullptr;
};

// Size of the output along time and mel. Call conv2d_check first.
int64_t conv2d_out_frames(const Conv2dShape& shape);
int64_t conv2d_out_mel(const Conv2dShape& shape);

// Everything that can be wrong with a layer before it runs: widths, shapes, overflow, buffer sizes.
Status conv2d_check(const Conv2dShape& shape, const Conv2dWeights& weights);

// There are two ways to run a layer.
//
// From its codes: conv2d_run expands the weights a few output channels at a time, at each call. Memory stays that of
// the file plus scratch, time is lost: that of expanding.
//
// From packed weights: conv2d_pack expands them once, as the kernel of this layer on this machine likes them best, and
// conv2d_run_packed uses them from then on. Memory of the packed weights, per weight: 4 bytes; of 3x3 layers with
// stride 1 16 bytes (F(4x4)), or 7.1 bytes (F(2x2), above 36864 = 192 * 192 input times output channels); output
// channels are rounded up to at most 32. All memory is the caller's and 64-byte aligned.

// Bytes of scratch that conv2d_run needs; contents need not survive a call, so that all layers of a network can share
// one. With K = kernel_frames * kernel_mel * I and O = out_channels it is at most 320 K + 8 O + 193 KiB or, for 3x3
// layers with stride 1, max(1280 KiB, 2.1 KiB * I) + max(640 KiB, 4.6 KiB * I) + 8 O + 72 KiB; whatever the number of
// frames and mel bins. 0 for a bad shape.
size_t conv2d_scratch_bytes(const Conv2dShape& shape);

// Runs the layer, or a share of it in scratch of its own. Checks everything again; allocates nothing. The
// output must not overlap the input; it may be the residual itself.
Status conv2d_run(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors, void* scratch,
                  size_t scratch_bytes, const Share& share = {});

// Bytes of the packed weights: the same for every batch, frames and mel. 0 for a bad shape.
size_t conv2d_packed_bytes(const Conv2dShape& shape);

// Writes the packed weights, scale and bias included; `packed_bytes` must be what conv2d_packed_bytes says. They begin
// with a header that conv2d_run_packed checks. They belong to this process: their layout is no file format.
Status conv2d_pack(const Conv2dShape& shape, const Conv2dWeights& weights, void* packed, size_t packed_bytes);

// Scratch of conv2d_run_packed, in bytes: for 3x3 layers with stride 1 up to 513 KiB + 2.1 KiB * I + 64 KiB, for others
// 56 K + 193 KiB. 0 for a bad shape.
size_t conv2d_packed_scratch_bytes(const Conv2dShape& shape);

// Like conv2d_run. kBadPacked if `packed` was made for a layer of another geometry or width, or while another
// instruction set was selected, or was not made by conv2d_pack at all.
Status conv2d_run_packed(const Conv2dShape& shape, const void* packed, size_t packed_bytes,
                         const Conv2dTensors& tensors, void* scratch, size_t scratch_bytes, const Share& share = {});

// The kernels that conv2d_run and conv2d_run_packed use for a layer on this machine; "" for a bad shape.
const char* conv2d_kernel_name(const Conv2dShape& shape);
const char* conv2d_packed_kernel_name(const Conv2dShape& shape);

}  // namespace voxpress
