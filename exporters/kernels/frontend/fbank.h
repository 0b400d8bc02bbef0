// Log-mel filter bank with mean normalisation, as Kaldi computes it: [N, samples] -> [N, frames, mel].
//
//   frames       = 1 + (samples - window_samples) / shift_samples
//   x_t          = sample_scale * input[t * shift : t * shift + window_samples]
//   spectrum     = |FFT(window * preemphasis(x_t - mean(x_t)))|^2, or |.| without use_power; bins 0 to fft_size / 2 - 1
//   y[t, m]      = log(max(sum_k mel[m, k] * spectrum[k], eps)), eps = 2^-23; the sum itself without use_log
//   output[t, m] = y[t, m] - sum_t y[t, m] / frames; y itself without mean_normalise
//
// preemphasis(x)[i] = x[i] - preemphasis * x[max(i - 1, 0)]; mel filters are triangles on 1127 log(1 + hz / 700)
// between low_hz and high_hz. All but the mean is single precision, with sums in the order in which kaldi-native-fbank
// 1.23 takes them: on x86-64, where the FFT's length is a power of two, the bits are the same (fft.h). Other lengths
// differ by the roundings of either FFT, which show in bins 100 dB below their frame.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace voxpress {

constexpr int32_t kFbankVersion = 1;

enum class FbankWindow : int32_t { kHamming = 0, kPovey = 1, kHanning = 2 };

// high_hz is the upper edge itself, not Kaldi's "0 or negative: counted from half the sample rate".
struct FbankOptions {
  int32_t sample_rate_hz = 0, window_samples = 0, shift_samples = 0, num_mel_bins = 0;
  float sample_scale = 0, preemphasis = 0, low_hz = 0, high_hz = 0;
  FbankWindow window = FbankWindow::kHamming;
  bool round_to_power_of_two = true;  // of the FFT's length; false: window_samples
  bool remove_dc_offset = true;
  bool use_power = true;
  bool use_log = true;
  bool mean_normalise = true;
};

// kBadShape for anything out of range. Limits: 8 to 48 kHz, windows and shifts up to a second, 1 to 256 mel bins, an
// even length of the FFT.
Status fbank_check(const FbankOptions& options);

// Frames that so many samples give; 0 for fewer than a window.
int64_t fbank_frames(const FbankOptions& options, int64_t samples);

// Tables (window, twiddle factors, mel filters) that depend on the options alone. Made once into memory of the caller
// that is aligned to 8 bytes; 0 bytes for options that fbank_check refuses.
size_t fbank_plan_bytes(const FbankOptions& options);
Status fbank_plan(const FbankOptions& options, void* plan, size_t plan_bytes);

// Scratch of one call, aligned to 8 bytes.
size_t fbank_scratch_bytes(const FbankOptions& options);

struct FbankTensors {
  int64_t batch = 0, samples = 0;
  const float* input = nullptr;  // [batch, samples]
  float* output = nullptr;       // [batch, frames, num_mel_bins]
};

// kBadShape if there are fewer samples than a window, kBadPacked for a plan of other options.
Status fbank_run(const FbankOptions& options, const void* plan, size_t plan_bytes, const FbankTensors& tensors,
                 void* scratch, size_t scratch_bytes);

const char* fbank_kernel_name();

}  // namespace voxpress
