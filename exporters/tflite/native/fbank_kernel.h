// The front end as a delegated node: samples [N, samples] -> features [N, frames, mel].
#pragma once

#include "abi.h"

namespace voxpress::tflite {

constexpr const char* kFbankName = "voxpress.fbank";

Registration fbank_registration();

}  // namespace voxpress::tflite
