// The front end as a delegated node: samples [N, samples] -> features [N, frames, mel].
//
// Custom options of voxpress.fbank: "VXFB", u16 version = 1, u8 window, u8 flags (round_to_power_of_two 1,
// remove_dc_offset 2, use_power 4, use_log 8, mean_normalise 16), i32 sample_rate_hz, window_samples, shift_samples,
// num_mel_bins, f32 sample_scale, preemphasis, low_hz, high_hz, i32 reserved = 0                             (44 bytes)
#pragma once

#include <cstddef>

#include "abi.h"
#include "frontend/fbank.h"

namespace voxpress::tflite {

constexpr const char* kFbankName = "voxpress.fbank";

// Null if the bytes are whole and of a known version, else what is wrong with them. Values out of range are left to
// fbank_check.
const char* parse_fbank_options(const void* bytes, size_t size, FbankOptions* options);

Registration fbank_registration();

}  // namespace voxpress::tflite
