// The kernels for C callers and ctypes: flat functions over the same structs, nothing else.
#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "base/status.h"
#include "base/usage.h"
#include "bitpack/unpack.h"
#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"
#include "pool/stats_pool.h"

#define VOXPRESS_EXPORT extern "C" __attribute__((visibility("default")))

using voxpress::Conv2dShape;
using voxpress::Conv2dTensors;
using voxpress::Conv2dU8Shape;
using voxpress::Conv2dU8Tensors;
using voxpress::Conv2dWeights;
using voxpress::Share;
using voxpress::StatsPoolShape;

// One conv2d call. The order of the fields is the surface: a caller lays them out as C does on a 64-bit ABI.
struct VoxpressConv2d {
  Conv2dShape shape;
  Conv2dWeights weights;
  Conv2dTensors tensors;
  void* scratch;
  size_t scratch_bytes;
  Share share;
};

struct VoxpressConv2dU8 {
  Conv2dU8Shape shape;
  Conv2dWeights weights;
  Conv2dU8Tensors tensors;
  void* scratch;
  size_t scratch_bytes;
  Share share;
};

VOXPRESS_EXPORT int32_t voxpress_unpack(const void* packed, size_t packed_bytes, int32_t bits, int64_t first,
                                        int64_t count, uint8_t* out) {
  return static_cast<int32_t>(voxpress::unpack_codes(packed, packed_bytes, bits, first, count, out));
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_check(const VoxpressConv2d* call) {
  return static_cast<int32_t>(voxpress::conv2d_check(call->shape, call->weights));
}

VOXPRESS_EXPORT size_t voxpress_conv2d_scratch_bytes(const VoxpressConv2d* call) {
  return voxpress::conv2d_scratch_bytes(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_run(const VoxpressConv2d* call) {
  return static_cast<int32_t>(
      voxpress::conv2d_run(call->shape, call->weights, call->tensors, call->scratch, call->scratch_bytes, call->share));
}

VOXPRESS_EXPORT size_t voxpress_conv2d_packed_bytes(const VoxpressConv2d* call) {
  return voxpress::conv2d_packed_bytes(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_pack(const VoxpressConv2d* call, void* packed, size_t packed_bytes) {
  return static_cast<int32_t>(voxpress::conv2d_pack(call->shape, call->weights, packed, packed_bytes));
}

VOXPRESS_EXPORT size_t voxpress_conv2d_packed_scratch_bytes(const VoxpressConv2d* call) {
  return voxpress::conv2d_packed_scratch_bytes(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_run_packed(const VoxpressConv2d* call, const void* packed,
                                                   size_t packed_bytes) {
  return static_cast<int32_t>(voxpress::conv2d_run_packed(call->shape, packed, packed_bytes, call->tensors,
                                                          call->scratch, call->scratch_bytes, call->share));
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_u8_check(const VoxpressConv2dU8* call) {
  return static_cast<int32_t>(voxpress::conv2d_u8_check(call->shape, call->weights));
}

VOXPRESS_EXPORT size_t voxpress_conv2d_u8_scratch_bytes(const VoxpressConv2dU8* call) {
  return voxpress::conv2d_u8_scratch_bytes(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_u8_run(const VoxpressConv2dU8* call) {
  return static_cast<int32_t>(
      voxpress::conv2d_u8_run(call->shape, call->weights, call->tensors, call->scratch, call->scratch_bytes));
}

VOXPRESS_EXPORT size_t voxpress_conv2d_u8_packed_bytes(const VoxpressConv2dU8* call) {
  return voxpress::conv2d_u8_packed_bytes(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_u8_pack(const VoxpressConv2dU8* call, void* packed, size_t packed_bytes) {
  return static_cast<int32_t>(voxpress::conv2d_u8_pack(call->shape, call->weights, packed, packed_bytes, call->share));
}

VOXPRESS_EXPORT size_t voxpress_conv2d_u8_packed_scratch_bytes(const VoxpressConv2dU8* call) {
  return voxpress::conv2d_u8_packed_scratch_bytes(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_conv2d_u8_run_packed(const VoxpressConv2dU8* call, const void* packed,
                                                      size_t packed_bytes) {
  return static_cast<int32_t>(voxpress::conv2d_u8_run_packed(call->shape, packed, packed_bytes, call->tensors,
                                                             call->scratch, call->scratch_bytes, call->share));
}

VOXPRESS_EXPORT const char* voxpress_conv2d_u8_kernel_name(const VoxpressConv2dU8* call) {
  return voxpress::conv2d_u8_kernel_name(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_stats_pool_run(const StatsPoolShape* shape, const float* input, float* output) {
  return static_cast<int32_t>(voxpress::stats_pool_run(*shape, input, output));
}

VOXPRESS_EXPORT const char* voxpress_conv2d_kernel_name(const VoxpressConv2d* call) {
  return voxpress::conv2d_kernel_name(call->shape);
}

VOXPRESS_EXPORT const char* voxpress_conv2d_packed_kernel_name(const VoxpressConv2d* call) {
  return voxpress::conv2d_packed_kernel_name(call->shape);
}

VOXPRESS_EXPORT int32_t voxpress_select_isa(const char* name) {
  return static_cast<int32_t>(voxpress::select_isa(name));
}

VOXPRESS_EXPORT const char* voxpress_selected_isa() { return voxpress::isa_name(voxpress::selected_isa()); }

VOXPRESS_EXPORT const char* voxpress_stats_pool_kernel_name() { return voxpress::stats_pool_kernel_name(); }

VOXPRESS_EXPORT const char* voxpress_status_text(int32_t status) {
  return voxpress::status_text(static_cast<voxpress::Status>(status));
}

VOXPRESS_EXPORT size_t voxpress_kernels_used(char* text, size_t size) { return voxpress::kernels_used(text, size); }
