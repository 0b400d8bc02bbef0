// Custom options of VoxPress's ops in a .tflite file: small packed little-endian structs with a magic and a version.
//
//   voxpress.conv2d      "VXC2", u16 version = 1, u8 bits, u8 relu, i32 kernel_frames, kernel_mel, stride_frames,
//                        stride_mel, pad_frames, pad_mel, groups, reserved = 0                              (40 bytes)
//   voxpress.conv2d_u8   "VXU8", u16 version = 1, u8 bits, u8 relu, i32 kernel_frames, kernel_mel, stride_frames,
//                        stride_mel, pad_frames, pad_mel, groups; u8 input, residual, output (0: float32, 1: u8),
//                        u8 algorithm; (f32 scale, i32 zero) of input, residual and output                   (64 bytes)
//   voxpress.stats_pool  "VXSP", u16 version = 1, u16 reserved = 0                                           (8 bytes)
//   voxpress.fbank       "VXFB", u16 version = 1, u8 window, u8 flags (round_to_power_of_two 1, remove_dc_offset 2,
//                        use_power 4, use_log 8, mean_normalise 16), i32 sample_rate_hz, window_samples, shift_samples,
//                        num_mel_bins, f32 sample_scale, preemphasis, low_hz, high_hz, i32 reserved = 0     (44 bytes)
#pragma once

#include <cstddef>

#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"
#include "frontend/fbank.h"

namespace voxpress::tflite {

// Null if the bytes are whole and of a known version, else what is wrong with them, for the runtime's error message.
// Fills the fields of `shape` or `options` that the bytes hold; sizes that do not fit together and values out of range
// are left to conv2d_check, conv2d_u8_check and fbank_check.
const char* parse_conv2d_options(const void* bytes, size_t size, Conv2dShape* shape);
const char* parse_conv2d_u8_options(const void* bytes, size_t size, Conv2dU8Shape* shape);
const char* parse_stats_pool_options(const void* bytes, size_t size);
const char* parse_fbank_options(const void* bytes, size_t size, FbankOptions* options);

}  // namespace voxpress::tflite
