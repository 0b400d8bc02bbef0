// Output positions one after the other, over [batch, frames, mel], without a division for each.
#pragma once

#include "conv/conv2d.h"
#include "conv/inline.h"

namespace voxpress {
namespace {

class Position {
 public:
  Position(const Conv2dShape& s, int64_t index) : out_frames_(conv2d_out_frames(s)), out_mel_(conv2d_out_mel(s)) {
    const int64_t line = index / out_mel_;
    n_ = line / out_frames_;
    frame_ = line % out_frames_;
    mel_ = index % out_mel_;
  }

  // By at most as many as are left in the line.
  void advance(int64_t count = 1) {
    mel_ += count;
    if (mel_ < out_mel_) return;
    mel_ = 0;
    if (++frame_ < out_frames_) return;
    frame_ = 0;
    ++n_;
  }

  // Positions from this one to the end of its line of mel.
  int64_t left_in_line() const { return out_mel_ - mel_; }
  int64_t n() const { return n_; }
  // Where the window of the position begins in the input; may lie outside.
  int64_t first_frame(const Conv2dShape& s) const { return frame_ * s.stride_frames - s.pad_frames; }
  int64_t first_mel(const Conv2dShape& s) const { return mel_ * s.stride_mel - s.pad_mel; }

 private:
  int64_t out_frames_, out_mel_;
  int64_t n_, frame_, mel_;
};

}  // namespace
}  // namespace voxpress
