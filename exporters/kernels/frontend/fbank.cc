#include "frontend/fbank.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "base/usage.h"
#include "frontend/fft.h"

namespace voxpress {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr float kFloor = std::numeric_limits<float>::epsilon();
constexpr uint32_t kPlanMagic = 0x50465856;  // "VXFP"

// One mel filter: its non-zero weights on neighbouring bins of the spectrum.
struct Filter {
  int32_t first = 0, count = 0, weights = 0;
};

struct Layout {
  int64_t fft_size, bins;  // bins = fft_size / 2, which is the length of the complex FFT too
  size_t roots, half_turns, window, weights, filters, plan_bytes;  // offsets into the plan
};

struct PlanHeader {
  uint32_t magic = kPlanMagic;
  int32_t version = kFbankVersion;
  uint64_t bytes = 0;
  FbankOptions options;
};
static_assert(sizeof(PlanHeader) % alignof(Complex) == 0);

int64_t fft_size_of(const FbankOptions& options) {
  if (!options.round_to_power_of_two) return options.window_samples;
  int64_t size = 1;
  while (size < options.window_samples) size *= 2;
  return size;
}

Layout layout_of(const FbankOptions& options) {
  Layout layout;
  layout.fft_size = fft_size_of(options);
  layout.bins = layout.fft_size / 2;
  const auto bins = static_cast<size_t>(layout.bins);
  layout.roots = sizeof(PlanHeader);
  layout.half_turns = layout.roots + sizeof(Complex) * bins;
  layout.window = layout.half_turns + sizeof(Complex) * bins;
  layout.weights = layout.window + sizeof(float) * static_cast<size_t>(options.window_samples);
  // A bin lies in at most two triangles.
  layout.filters = layout.weights + sizeof(float) * 2 * bins;
  layout.plan_bytes = layout.filters + sizeof(Filter) * static_cast<size_t>(options.num_mel_bins);
  layout.plan_bytes = (layout.plan_bytes + 7) / 8 * 8;  // so that tables one after the other stay aligned
  return layout;
}

bool same_options(const FbankOptions& a, const FbankOptions& b) {
  return a.sample_rate_hz == b.sample_rate_hz && a.window_samples == b.window_samples &&
         a.shift_samples == b.shift_samples && a.num_mel_bins == b.num_mel_bins && a.sample_scale == b.sample_scale &&
         a.preemphasis == b.preemphasis && a.low_hz == b.low_hz && a.high_hz == b.high_hz && a.window == b.window &&
         a.round_to_power_of_two == b.round_to_power_of_two && a.remove_dc_offset == b.remove_dc_offset &&
         a.use_power == b.use_power && a.use_log == b.use_log && a.mean_normalise == b.mean_normalise;
}

// exp(i angle)
Complex root_of_one(double angle) { return {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))}; }

double window_value(FbankWindow window, int64_t i, int64_t size) {
  const double cosine = std::cos(2 * kPi / static_cast<double>(size - 1) * static_cast<double>(i));
  switch (window) {
    case FbankWindow::kHamming:
      return 0.54 - 0.46 * cosine;
    case FbankWindow::kPovey:
      return std::pow(0.5 - 0.5 * cosine, 0.85);
    case FbankWindow::kHanning:
      return 0.5 - 0.5 * cosine;
  }
  return 0;
}

float mel_of(float hz) { return 1127.0f * std::log(1.0f + hz / 700.0f); }

// The triangles of all filters, each as a run of weights.
void plan_filters(const FbankOptions& options, const Layout& layout, float* weights, Filter* filters) {
  const float low = mel_of(options.low_hz);
  const float step = (mel_of(options.high_hz) - low) / static_cast<float>(options.num_mel_bins + 1);
  const float hz_per_bin = static_cast<float>(options.sample_rate_hz) / static_cast<float>(layout.fft_size);
  int32_t used = 0;
  for (int32_t m = 0; m < options.num_mel_bins; ++m) {
    const float left = low + static_cast<float>(m) * step, centre = low + static_cast<float>(m + 1) * step;
    const float right = low + static_cast<float>(m + 2) * step;
    Filter filter;
    filter.weights = used;
    for (int64_t k = 0; k < layout.bins && used < 2 * layout.bins; ++k) {
      const float mel = mel_of(hz_per_bin * static_cast<float>(k));
      if (mel <= left || mel >= right) continue;
      if (filter.count == 0) filter.first = static_cast<int32_t>(k);
      weights[used++] = mel <= centre ? (mel - left) / (centre - left) : (right - mel) / (right - centre);
      ++filter.count;
    }
    filters[m] = filter;
  }
}

template <typename T>
T* at(void* base, size_t offset) {
  return reinterpret_cast<T*>(static_cast<uint8_t*>(base) + offset);
}

template <typename T>
const T* at(const void* base, size_t offset) {
  return reinterpret_cast<const T*>(static_cast<const uint8_t*>(base) + offset);
}

struct Tables {
  Layout layout;
  const Complex* roots;       // exp(-2 pi i k / bins)
  const Complex* half_turns;  // exp(-2 pi i (k / fft_size + 1 / 4))
  const float* window;
  const float* weights;
  const Filter* filters;
};

struct Scratch {
  Complex* frame;  // the windowed frame, its even samples as real, its odd ones as imaginary parts
  Complex* transformed;
  Complex* work;
  float* spectrum;
  double* sums;
};

void load_frame(const FbankOptions& options, const Tables& tables, const float* input, Complex* frame) {
  const int64_t size = options.window_samples;
  const float scale = options.sample_scale;
  float mean = 0;
  if (options.remove_dc_offset) {
    for (int64_t i = 0; i < size; ++i) mean += input[i] * scale;
    mean /= static_cast<float>(size);
  }
  std::memset(frame, 0, sizeof(Complex) * static_cast<size_t>(tables.layout.bins));
  float before = input[0] * scale - mean;
  for (int64_t i = 0; i < size; ++i) {
    const float value = input[i] * scale - mean;
    const float windowed = (value - options.preemphasis * before) * tables.window[i];
    before = value;
    if (i % 2 == 0) {
      frame[i / 2].re = windowed;
    } else {
      frame[i / 2].im = windowed;
    }
  }
}

float half_power(float re, float im) {
  re *= 0.5f;
  im *= 0.5f;
  return re * re + im * im;
}

// |X[k]|^2 for k < n of the 2n real values whose even and odd ones are the parts of z: with Z = FFT(z) and
// r[k] = -i exp(-2 pi i k / (2n)), X[k] = (Z[k] + conj Z[n-k]) / 2 + r[k] (Z[k] - conj Z[n-k]) / 2, X[n-k] likewise.
// Sums in kaldi-native-fbank's order, see fft.h.
void power_spectrum(const Tables& tables, const Complex* z, float* spectrum) {
  const int64_t n = tables.layout.bins;
  const float first = z[0].re + z[0].im;
  spectrum[0] = first * first;
  for (int64_t k = 1; k <= n / 2; ++k) {
    const Complex mirrored = {z[n - k].re, -z[n - k].im};
    const Complex sum = z[k] + mirrored;
    const Product turned(z[k] - mirrored, tables.half_turns[k]);
    spectrum[k] = half_power((sum.re + turned.re_re) - turned.im_im, sum.im + turned.im);
    spectrum[n - k] = half_power((sum.re + turned.im_im) - turned.re_re, turned.im - sum.im);
  }
}

void mel_values(const FbankOptions& options, const Tables& tables, const float* spectrum, float* output) {
  for (int32_t m = 0; m < options.num_mel_bins; ++m) {
    const Filter& filter = tables.filters[m];
    float energy = 0;
    for (int32_t k = 0; k < filter.count; ++k) {
      energy += tables.weights[filter.weights + k] * spectrum[filter.first + k];
    }
    output[m] = options.use_log ? std::log(std::max(energy, kFloor)) : energy;
  }
}

void subtract_mean(int64_t frames, int64_t mel, double* sums, float* output) {
  for (int64_t m = 0; m < mel; ++m) sums[m] /= static_cast<double>(frames);
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t m = 0; m < mel; ++m) {
      output[t * mel + m] = static_cast<float>(static_cast<double>(output[t * mel + m]) - sums[m]);
    }
  }
}

void fbank_f32_none_1x1_portable(const FbankOptions& options, const Tables& tables, const FbankTensors& tensors,
                                 const Scratch& scratch) {
  const int64_t frames = fbank_frames(options, tensors.samples), mel = options.num_mel_bins;
  for (int64_t n = 0; n < tensors.batch; ++n) {
    const float* input = tensors.input + n * tensors.samples;
    float* output = tensors.output + n * frames * mel;
    std::fill(scratch.sums, scratch.sums + mel, 0.0);
    for (int64_t t = 0; t < frames; ++t) {
      load_frame(options, tables, input + t * options.shift_samples, scratch.frame);
      fft(scratch.frame, scratch.transformed, scratch.work, tables.layout.bins, tables.roots);
      power_spectrum(tables, scratch.transformed, scratch.spectrum);
      if (!options.use_power) {
        for (int64_t k = 0; k < tables.layout.bins; ++k) scratch.spectrum[k] = std::sqrt(scratch.spectrum[k]);
      }
      float* const values = output + t * mel;
      mel_values(options, tables, scratch.spectrum, values);
      for (int64_t m = 0; m < mel; ++m) scratch.sums[m] += static_cast<double>(values[m]);
    }
    if (options.mean_normalise) subtract_mean(frames, mel, scratch.sums, output);
  }
}

struct Choice {
  Kernel id;
  void (*run)(const FbankOptions& options, const Tables& tables, const FbankTensors& tensors, const Scratch& scratch);
};

constexpr Choice kKernels[] = {
#define VOXPRESS_FBANK_KERNEL(name) {Kernel::name, name},
#include "kernels.inc"
};

bool within(float value, float low, float high) { return value >= low && value <= high; }  // false for NaN

}  // namespace

Status fbank_check(const FbankOptions& options) {
  const bool sizes_fit = options.sample_rate_hz >= 8000 && options.sample_rate_hz <= 48000 &&
                         options.window_samples >= 2 && options.window_samples <= options.sample_rate_hz &&
                         options.shift_samples >= 1 && options.shift_samples <= options.sample_rate_hz &&
                         options.num_mel_bins >= 1 && options.num_mel_bins <= 256 && fft_size_of(options) % 2 == 0;
  const float half = 0.5f * static_cast<float>(options.sample_rate_hz);
  const bool values_fit = options.sample_scale > 0 && within(options.sample_scale, 0, 1e9f) &&
                          within(options.preemphasis, 0, 1) && within(options.low_hz, 0, half) &&
                          within(options.high_hz, 0, half) && options.low_hz < options.high_hz;
  const bool known_window = options.window == FbankWindow::kHamming || options.window == FbankWindow::kPovey ||
                            options.window == FbankWindow::kHanning;
  return sizes_fit && values_fit && known_window ? Status::kOk : Status::kBadShape;
}

int64_t fbank_frames(const FbankOptions& options, int64_t samples) {
  if (samples < options.window_samples || options.shift_samples < 1) return 0;
  return 1 + (samples - options.window_samples) / options.shift_samples;
}

size_t fbank_plan_bytes(const FbankOptions& options) {
  return fbank_check(options) == Status::kOk ? layout_of(options).plan_bytes : 0;
}

Status fbank_plan(const FbankOptions& options, void* plan, size_t plan_bytes) {
  const Status status = fbank_check(options);
  if (status != Status::kOk) return status;
  const Layout layout = layout_of(options);
  if (plan == nullptr) return Status::kNullPointer;
  if (plan_bytes < layout.plan_bytes) return Status::kBadBufferSize;
  PlanHeader header;
  header.bytes = layout.plan_bytes;
  header.options = options;
  std::memcpy(plan, &header, sizeof header);
  Complex* const roots = at<Complex>(plan, layout.roots);
  Complex* const half_turns = at<Complex>(plan, layout.half_turns);
  for (int64_t k = 0; k < layout.bins; ++k) {
    const auto turn = static_cast<double>(k), bins = static_cast<double>(layout.bins);
    roots[k] = root_of_one(-2 * kPi * turn / bins);
    half_turns[k] = root_of_one(-kPi * (turn / bins + 0.5));
  }
  float* const window = at<float>(plan, layout.window);
  for (int64_t i = 0; i < options.window_samples; ++i) {
    window[i] = static_cast<float>(window_value(options.window, i, options.window_samples));
  }
  plan_filters(options, layout, at<float>(plan, layout.weights), at<Filter>(plan, layout.filters));
  return Status::kOk;
}

size_t fbank_scratch_bytes(const FbankOptions& options) {
  if (fbank_check(options) != Status::kOk) return 0;
  const auto bins = static_cast<size_t>(layout_of(options).bins);
  // Whole doubles, so that what lies behind it in a shared buffer is aligned too.
  const size_t doubles = static_cast<size_t>(options.num_mel_bins) +
                         ((3 * sizeof(Complex) + sizeof(float)) * bins + sizeof(double) - 1) / sizeof(double);
  return sizeof(double) * doubles;
}

Status fbank_run(const FbankOptions& options, const void* plan, size_t plan_bytes, const FbankTensors& tensors,
                 void* scratch, size_t scratch_bytes) {
  const Status status = fbank_check(options);
  if (status != Status::kOk) return status;
  if (plan == nullptr || scratch == nullptr || tensors.input == nullptr || tensors.output == nullptr) {
    return Status::kNullPointer;
  }
  const Layout layout = layout_of(options);
  int64_t count;
  const int64_t frames = fbank_frames(options, tensors.samples);
  if (!element_count(&count, tensors.batch, tensors.samples) ||
      !element_count(&count, tensors.batch, frames, int64_t{options.num_mel_bins})) {
    return Status::kBadShape;
  }
  if (scratch_bytes < fbank_scratch_bytes(options)) return Status::kBadBufferSize;
  PlanHeader header;
  if (plan_bytes < sizeof header) return Status::kBadPacked;
  std::memcpy(&header, plan, sizeof header);
  if (header.magic != kPlanMagic || header.version != kFbankVersion || header.bytes != layout.plan_bytes ||
      plan_bytes < layout.plan_bytes || !same_options(header.options, options)) {
    return Status::kBadPacked;
  }
  const Tables tables = {layout,
                         at<Complex>(plan, layout.roots),
                         at<Complex>(plan, layout.half_turns),
                         at<float>(plan, layout.window),
                         at<float>(plan, layout.weights),
                         at<Filter>(plan, layout.filters)};
  auto* const sums = static_cast<double*>(scratch);
  auto* const frame = reinterpret_cast<Complex*>(sums + options.num_mel_bins);
  Complex* const transformed = frame + layout.bins;
  Complex* const work = transformed + layout.bins;
  kKernels[0].run(options, tables, tensors,
                  {frame, transformed, work, reinterpret_cast<float*>(work + layout.bins), sums});
  mark_used(kKernels[0].id);
  return Status::kOk;
}

const char* fbank_kernel_name() { return kernel_name(kKernels[0].id); }

}  // namespace voxpress
