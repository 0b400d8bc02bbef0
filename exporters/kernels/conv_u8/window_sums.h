// The sums of the inputs of windows, which count for two-valued palettes that are not +-a: those of pixels first, so
// that each input is read once however many windows it is in, then of the pixels of windows.
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
    line_pixels_ = s.in_mel + 2 * s.pad_mel;
    pixels_ = reinterpret_cast<int32_t*>(take(s.batch * s.in_frames * line_pixels_ + kPixels));
    outside_ = reinterpret_cast<int32_t*>(take(line_pixels_));
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
    std::memset(outside_, 0, static_cast<size_t>(line_pixels_) * sizeof(int32_t));
  }

  // Sees to all positions before `end`, which may lie behind the last.
  void reach(int64_t end) {
    const int64_t line_end = ceil_div(least(end, s_.batch * out_frames_ * out_mel_), out_mel_);
    // All pixels first: what has just been written cannot be read in other pieces yet.
    for (int64_t line = next_window_line_; line < line_end; ++line) {
      const WindowLines in = lines_of(line);
      for (next_line_ = most(next_line_, in.utterance + in.first); next_line_ < in.utterance + in.last; ++next_line_) {
        sum_line(next_line_);
      }
    }
    for (; next_window_line_ < line_end; ++next_window_line_) sum_windows(next_window_line_);
  }

  // By position, [batch, frames, mel]; kWindowsRead may be read from each.
  const float* windows() const { return windows_; }

 private:
  static constexpr int kPixels = 8;  // that are summed together

  typedef int32_t Fours __attribute__((vector_size(16)));

  // Of the input, that a line of windows reads: from `frame` on, of which first..last exist.
  struct WindowLines {
    int64_t utterance;  // its first line
    int64_t frame, first, last;
  };

  WindowLines lines_of(int64_t window_line) const {
    const int64_t n = window_line / out_frames_;
    const int64_t frame = window_line % out_frames_ * s_.stride_frames - s_.pad_frames;
    const int64_t first = most(0, frame);
    return {n * s_.in_frames, frame, first, most(first, least(s_.in_frames, frame + s_.kernel_frames))};
  }

  void sum_windows(int64_t window_line) {
    const WindowLines in = lines_of(window_line);
    const auto line_at = [&](int64_t frame) {
      return frame >= in.first && frame < in.last ? pixels_ + (in.utterance + frame) * line_pixels_ : outside_;
    };
    float* windows = windows_ + window_line * out_mel_;
    if (s_.kernel_frames == 3 && s_.kernel_mel == 3 && s_.stride_mel == 1) {
      const int32_t *a = line_at(in.frame), *b = line_at(in.frame + 1), *c = line_at(in.frame + 2);
      for (int64_t m = 0; m < out_mel_; ++m) {
        const int32_t first = a[m] + b[m] + c[m];
        const int32_t second = a[m + 1] + b[m + 1] + c[m + 1];
        windows[m] = static_cast<float>(first + second + (a[m + 2] + b[m + 2] + c[m + 2]));
      }
      return;
    }
    for (int64_t m = 0; m < out_mel_; ++m) {
      int32_t sum = 0;
      for (int64_t frame = in.first; frame < in.last; ++frame) {
        const int32_t* pixels = line_at(frame) + m * s_.stride_mel;
        for (int64_t df = 0; df < s_.kernel_mel; ++df) sum += pixels[df];
      }
      windows[m] = static_cast<float>(sum);
    }
  }

  // What lies outside of the line is as good as the zero point. Pixels of half a vector are summed two by two, as the
  // halves of one.
  void sum_line(int64_t line) {
    const uint8_t* input = input_ + line * s_.in_mel * s_.in_channels;
    int32_t* pixels = pixels_ + line * line_pixels_;
    for (int64_t j = 0; j < s_.pad_mel; ++j) pixels[j] = 0;
    pixels += s_.pad_mel;
    int64_t mel = 0;
    if (kBytes > 16 && s_.in_channels == kBytes / 2 && depth_ == kBytes / 2) {
      for (; mel + 2 * kPixels <= s_.in_mel; mel += 2 * kPixels) {
        const uint8_t* pairs = input + mel * s_.in_channels;
        S32s lanes[kPixels];
        VOXPRESS_UNROLL
        for (int j = 0; j < kPixels; ++j) lanes[j] = add_bytes(S32s{}, load<U8s>(pairs + j * kBytes));
        int32_t found[2 * kPixels];
        sums_of_eight(lanes, found);
        VOXPRESS_UNROLL
        for (int j = 0; j < kPixels; j += 4) {
          const Fours even = load<Fours>(found + j) - zero_;
          const Fours odd = load<Fours>(found + kPixels + j) - zero_;
          store(pixels + mel + 2 * j, __builtin_shufflevector(even, odd, 0, 4, 1, 5));
          store(pixels + mel + 2 * j + 4, __builtin_shufflevector(even, odd, 2, 6, 3, 7));
        }
      }
    }
    if (depth_ % kBytes == 0 && s_.in_mel >= kPixels) {
      // The last ones end with the line, also if some of them are summed twice.
      for (; mel < s_.in_mel; mel += kPixels) {
        mel = least(mel, s_.in_mel - kPixels);
        sum_pixels(input + mel * s_.in_channels, pixels + mel);
      }
    }
    // Sums of pixels behind the last are overwritten, by this line's end or the next one.
    for (; mel < s_.in_mel; mel += kPixels) {
      S32s lanes[kPixels] = {};
      const int64_t count = least(kPixels, s_.in_mel - mel);
      for (int64_t j = 0; j < count; ++j) lanes[j] = sum_pixel(input + (mel + j) * s_.in_channels);
      write_pixels(lanes, pixels + mel);
    }
    for (int64_t j = 0; j < s_.pad_mel; ++j) pixels[s_.in_mel + j] = 0;
  }

  // kPixels of whole vectors.
  void sum_pixels(const uint8_t* input, int32_t* pixels) const {
    S32s lanes[kPixels];
    VOXPRESS_UNROLL
    for (int j = 0; j < kPixels; ++j) lanes[j] = add_bytes(S32s{}, load<U8s>(input + j * s_.in_channels));
    for (int64_t channel = kBytes; channel < depth_; channel += kBytes) {
      VOXPRESS_UNROLL
      for (int j = 0; j < kPixels; ++j) {
        lanes[j] = add_bytes(lanes[j], load<U8s>(input + j * s_.in_channels + channel));
      }
    }
    write_pixels(lanes, pixels);
  }

  // Of lanes[kPixels], one for each.
  void write_pixels(const S32s* lanes, int32_t* pixels) const {
    int32_t found[2 * kPixels];
    sums_of_eight(lanes, found);
    VOXPRESS_UNROLL
    for (int j = 0; j < kPixels; j += 4) {  // in the pieces that have been written
      store(pixels + j, load<Fours>(found + j) + load<Fours>(found + kPixels + j) - zero_);
    }
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
  int64_t depth_, out_frames_, out_mel_, line_pixels_;
  int64_t bytes_ = 0;
  int32_t* pixels_;   // [batch * in_frames][line_pixels]
  int32_t* outside_;  // a line of zeros
  float* windows_;    // [batch * out_frames][out_mel]
  const uint8_t* input_ = nullptr;
  int32_t zero_ = 0;
  int64_t next_line_ = 0, next_window_line_ = 0;
};

}  // namespace
}  // namespace voxpress
