// The sums of the inputs of windows, which count for two-valued palettes that are not +-a: those of pixels first, then
// of a window's pixels side by side, then of its frames, so that each pixel is read once however many windows it is in.
#pragma once

#include VOXPRESS_LANES_HEADER

#include "conv_u8/variants.h"

namespace voxpress {
namespace {

constexpr int kWindowsRead = 4;  // at a time, by the loops that write outputs

// Sums of one channel group, made line by line. Scratch is for all of a call's positions.
class WindowSums {
 public:
  WindowSums(const Conv2dShape& s, unsigned char* scratch) : s_(s), depth_(s.in_channels / s.groups) {
    out_frames_ = conv2d_out_frames(s);
    out_mel_ = conv2d_out_mel(s);
    const auto take = [&](int64_t count) {
      unsigned char* begin = scratch + bytes_;
      bytes_ += round_up(count * static_cast<int64_t>(sizeof(int32_t)), 64);
      return begin;
    };
    pixels_ = reinterpret_cast<int32_t*>(take(most(s.in_mel + kPixels, out_mel_)));
    lines_ = reinterpret_cast<int32_t*>(take(s.batch * s.in_frames * out_mel_));
    windows_ = reinterpret_cast<float*>(take(s.batch * out_frames_ * out_mel_ + kWindowsRead));
  }

  // None, where they do not count.
  static int64_t scratch_bytes(const Conv2dShape& s) { return s.bits == 1 ? WindowSums(s, nullptr).bytes_ : 0; }

  // From position `first` on, of channel group `group`.
  void begin(const Conv2dU8Call& call, int64_t group, int64_t first) {
    input_ = static_cast<const uint8_t*>(call.tensors->input) + group * depth_;
    zero_ = static_cast<int32_t>(depth_) * call.shape->in.zero;
    next_window_line_ = first / out_mel_;
    next_line_ = 0;
  }

  // Sees to all positions before `end`, which may lie behind the last.
  void reach(int64_t end) {
    end = least(end, s_.batch * out_frames_ * out_mel_);
    for (; next_window_line_ * out_mel_ < end; ++next_window_line_) {
      const int64_t n = next_window_line_ / out_frames_;
      const int64_t frame = next_window_line_ % out_frames_ * s_.stride_frames - s_.pad_frames;
      const int64_t first = most(0, frame);
      const int64_t last = least(s_.in_frames, frame + s_.kernel_frames);
      const int64_t line = n * s_.in_frames;
      if (first < last) {
        for (next_line_ = most(next_line_, line + first); next_line_ < line + last; ++next_line_) sum_line(next_line_);
      }
      int32_t* sums = pixels_;
      std::memset(sums, 0, static_cast<size_t>(out_mel_) * sizeof(int32_t));
      for (int64_t t = first; t < last; ++t) add_line(lines_ + (line + t) * out_mel_, out_mel_, sums);
      float* windows = windows_ + next_window_line_ * out_mel_;
      for (int64_t m = 0; m < out_mel_; ++m) windows[m] = static_cast<float>(sums[m]);
    }
  }

  // By position, [batch, frames, mel]; kWindowsRead may be read from each.
  const float* windows() const { return windows_; }

 private:
  static constexpr int kPixels = 8;  // that are summed together

  // Pixels of half a vector are summed two by two, as the halves of one.
  void sum_line(int64_t line) {
    const uint8_t* input = input_ + line * s_.in_mel * s_.in_channels;
    int64_t mel = 0;
    if (kBytes > 16 && s_.in_channels == kBytes / 2 && depth_ == kBytes / 2) {
      for (; mel + 2 * kPixels <= s_.in_mel; mel += 2 * kPixels, input += kPixels * kBytes) {
        S32s lanes[kPixels];
        VOXPRESS_UNROLL
        for (int j = 0; j < kPixels; ++j) lanes[j] = add_bytes(S32s{}, load<U8s>(input + j * kBytes));
        int32_t found[2 * kPixels];
        sums_of_eight(lanes, found);
        VOXPRESS_UNROLL
        for (int j = 0; j < kPixels; ++j) {
          pixels_[mel + 2 * j] = found[j] - zero_;
          pixels_[mel + 2 * j + 1] = found[kPixels + j] - zero_;
        }
      }
    }
    for (; mel < s_.in_mel; mel += kPixels) {
      const int64_t count = least(kPixels, s_.in_mel - mel);
      S32s lanes[kPixels] = {};
      for (int64_t j = 0; j < count; ++j, input += s_.in_channels) lanes[j] = sum_pixel(input);
      int32_t found[2 * kPixels];
      sums_of_eight(lanes, found);
      VOXPRESS_UNROLL
      for (int j = 0; j < kPixels; ++j) pixels_[mel + j] = found[j] + found[kPixels + j] - zero_;
    }
    int32_t* target = lines_ + line * out_mel_;
    std::memset(target, 0, static_cast<size_t>(out_mel_) * sizeof(int32_t));
    for (int64_t df = 0; df < s_.kernel_mel; ++df) {
      // Of the outputs for which this tap lies inside.
      const int64_t at = df - s_.pad_mel;
      const int64_t begin = at < 0 ? ceil_div(-at, s_.stride_mel) : 0;
      const int64_t end = least(out_mel_, ceil_div(s_.in_mel - at, s_.stride_mel));
      if (s_.stride_mel == 1) {
        if (begin < end) add_line(pixels_ + begin + at, end - begin, target + begin);
      } else {
        for (int64_t m = begin; m < end; ++m) target[m] += pixels_[m * s_.stride_mel + at];
      }
    }
  }

  static void add_line(const int32_t* source, int64_t count, int32_t* __restrict target) {
    for (int64_t j = 0; j < count; ++j) target[j] += source[j];
  }

  S32s sum_pixel(const uint8_t* pixel) const {
    S32s sum = {};
    int64_t channel = 0;
    for (; channel + kBytes <= depth_; channel += kBytes) sum = add_bytes(sum, load<U8s>(pixel + channel));
    if (channel == depth_) return sum;
    alignas(kBytes) uint8_t rest[kBytes] = {};
    std::memcpy(rest, pixel + channel, static_cast<size_t>(depth_ - channel));
    return add_bytes(sum, load<U8s>(rest));
  }

  const Conv2dShape& s_;
  int64_t depth_, out_frames_, out_mel_;
  int64_t bytes_ = 0;
  int32_t* pixels_;  // of one line, in or out
  int32_t* lines_;   // [batch * in_frames][out_mel]: of kernel_mel pixels
  float* windows_;   // [batch * out_frames][out_mel]
  const uint8_t* input_ = nullptr;
  int32_t zero_ = 0;
  int64_t next_line_ = 0, next_window_line_ = 0;
};

}  // namespace
}  // namespace voxpress
