// Convolution of any geometry as a matrix product: the inputs of a group of positions are gathered into rows of
// taps * depth floats, in the order of the weights, then multiplied with one panel of weights after the other.
#pragma once

#include "conv/gemm.h"
#include "conv/panel.h"
#include "conv/position.h"

namespace voxpress {
namespace {

constexpr int64_t kGatherBudgetBytes = 192 << 10;  // of gathered rows at a time: leaves room in a 512 KiB L2 cache

struct DirectPlan {
  int64_t taps;
  int64_t depth;         // input channels of a group
  int64_t row_floats;    // taps * depth: how much of a row counts
  int64_t group_floats;  // of a group of gathered rows
  int64_t outputs;       // output channels of a group
  int64_t panels;        // of a group
  int64_t panel_floats;
  int64_t out_frames;
  int64_t out_mel;
  Range range;               // of positions
  int64_t rows;              // per group of positions
  int64_t groups_per_block;  // groups of positions gathered before the panels go over them
};

DirectPlan direct_plan(const Conv2dShape& s, const Share& share) {
  DirectPlan plan;
  plan.taps = s.kernel_frames * s.kernel_mel;
  plan.depth = s.in_channels / s.groups;
  plan.row_floats = plan.taps * plan.depth;
  plan.outputs = s.out_channels / s.groups;
  plan.panels = ceil_div(plan.outputs, kPanel);
  plan.panel_floats = plan.row_floats * kPanel;
  plan.out_frames = conv2d_out_frames(s);
  plan.out_mel = conv2d_out_mel(s);
  plan.range = share_of(s.batch * plan.out_frames * plan.out_mel, share);
  const int64_t positions = most(1, plan.range.end - plan.range.begin);
  plan.rows = rows_per_group(positions);
  plan.group_floats = round_up(plan.row_floats, kLanes) * plan.rows;
  const int64_t fitting = kGatherBudgetBytes / (plan.group_floats * static_cast<int64_t>(sizeof(float)));
  plan.groups_per_block = most(1, least(fitting, ceil_div(positions, plan.rows)));
  return plan;
}

// Enough for every share of the positions, and with it any number of rows.
int64_t direct_gather_bytes(const DirectPlan& plan) {
  const int64_t group_bytes = round_up(plan.row_floats, kLanes) * kRows * static_cast<int64_t>(sizeof(float));
  return round_up(most(kGatherBudgetBytes, group_bytes), 64);
}

// Side by side in a 3x3 kernel over one channel: too few for loops.
constexpr int kStemTaps = 3;

// A row of a group, written from front to back: its floats lie in runs of kLanes, `step` apart.
class RowWriter {
 public:
  RowWriter(float* row, int64_t step) : run_(row), step_(step) {}

  void copy(const float* source, int64_t count) {
    if (count == kStemTaps && lane_ + kStemTaps < kLanes) {
      std::memcpy(run_ + lane_, source, kStemTaps * sizeof(float));
      lane_ += kStemTaps;
      return;
    }
    while (count > 0) {
      const int64_t part = least(kLanes - lane_, count);
      if (part == kLanes) {
        store(run_, load(source));
      } else {
        for (int64_t j = 0; j < part; ++j) run_[lane_ + j] = source[j];
      }
      source += part;
      count -= part;
      advance(part);
    }
  }

  void zero(int64_t count) {
    while (count > 0) {
      const int64_t part = least(kLanes - lane_, count);
      for (int64_t j = 0; j < part; ++j) run_[lane_ + j] = 0.0f;
      count -= part;
      advance(part);
    }
  }

 private:
  void advance(int64_t part) {
    lane_ += part;
    if (lane_ < kLanes) return;
    lane_ = 0;
    run_ += step_;
  }

  float* run_;
  int64_t step_;
  int64_t lane_ = 0;
};

// Gathers the inputs of one position; `input` is that of the channel group.
VOXPRESS_INLINE void gather_row(const Conv2dShape& s, const DirectPlan& plan, const float* input,
                                const Position& position, RowWriter row) {
  const int64_t mel0 = position.first_mel(s);
  const int64_t frame0 = position.first_frame(s);
  const float* utterance = input + position.n() * s.in_frames * s.in_mel * s.in_channels;
  // Without groups, the taps of one frame lie side by side in the input.
  const bool side_by_side = s.groups == 1 && mel0 >= 0 && mel0 + s.kernel_mel <= s.in_mel;
  for (int64_t frame = frame0; frame < frame0 + s.kernel_frames; ++frame) {
    if (frame < 0 || frame >= s.in_frames) {
      row.zero(s.kernel_mel * plan.depth);
      continue;
    }
    const float* line_input = utterance + frame * s.in_mel * s.in_channels;
    if (side_by_side) {
      row.copy(line_input + mel0 * s.in_channels, s.kernel_mel * plan.depth);
    } else {
      for (int64_t mel = mel0; mel < mel0 + s.kernel_mel; ++mel) {
        if (mel >= 0 && mel < s.in_mel) {
          row.copy(line_input + mel * s.in_channels, plan.depth);
        } else {
          row.zero(plan.depth);
        }
      }
    }
  }
}

// Groups of positions from `first` on, one behind the other. Rows behind the last position are zero.
void gather(const Conv2dCall& call, const DirectPlan& plan, int64_t channel_group, int64_t first, int64_t groups,
            float* gathered) {
  const float* input = call.tensors->input + channel_group * plan.depth;
  Position position(*call.shape, first);
  for (int64_t g = 0; g < groups; ++g, gathered += plan.group_floats) {
    for (int64_t m = 0; m < plan.rows; ++m, ++first) {
      RowWriter row(gathered + m * kLanes, plan.rows * kLanes);
      if (first < plan.range.end) {
        gather_row(*call.shape, plan, input, position, row);
        position.advance();
      } else {
        row.zero(plan.row_floats);
      }
    }
  }
}

// One panel over the gathered groups of positions.
struct PanelJob {
  const float* gathered;
  int64_t first_position;
  int64_t groups;
  const float* panel;
  int64_t first_channel;
  int64_t channels;
};

template <int kR>
struct RunPanel {
  static void run(const Conv2dCall& call, const DirectPlan& plan, const PanelJob& job) {
    const int64_t out_channels = call.shape->out_channels;
    for (int64_t g = 0; g < job.groups; ++g) {
      Lanes sum[kR][kVectors];
      multiply<kR>(job.gathered + g * plan.group_floats, job.panel, plan.row_floats, sum);
      float sums[kR * kPanel];
      store_sums<kR>(sum, kPanel, sums);
      const int64_t first = job.first_position + g * kR;
      for (int m = 0; m < kR && first + m < plan.range.end; ++m) {
        for (int v = 0; v < kVectors && v * kLanes < job.channels; ++v) {
          const int64_t channel = job.first_channel + v * kLanes;
          finish(call, channel, (first + m) * out_channels + channel, job.channels - v * kLanes,
                 load(sums + m * kPanel + v * kLanes));
        }
      }
    }
  }
};

void run_panel(const Conv2dCall& call, const DirectPlan& plan, const PanelJob& job) {
  WithRows<RunPanel, kRows>::run(plan.rows, call, plan, job);
}

bool direct_takes(const Conv2dShape& s) { return fills_vectors(s.out_channels / s.groups); }

// Prepared weights: [groups][panels][taps * depth][kPanel].
int64_t direct_prepared_floats(const Conv2dShape& s) {
  const DirectPlan plan = direct_plan(s, {});
  return s.groups * plan.panels * plan.panel_floats;
}

PanelSpec panel_spec(const DirectPlan& plan, int64_t channel_group, int64_t panel) {
  const int64_t first = panel * kPanel;
  return {plan.row_floats, channel_group * plan.outputs + first, least(kPanel, plan.outputs - first), kPanel};
}

void direct_pack(const Conv2dShape& s, const Conv2dWeights& weights, float* prepared) {
  const DirectPlan plan = direct_plan(s, {});
  Palette palette;
  load_palette(s, weights, &palette);
  for (int64_t group = 0; group < s.groups; ++group) {
    for (int64_t p = 0; p < plan.panels; ++p, prepared += plan.panel_floats) {
      fill_panel(s, weights, palette, panel_spec(plan, group, p), prepared);
    }
  }
}

int64_t direct_scratch_bytes(const Conv2dShape& s) { return direct_gather_bytes(direct_plan(s, {})); }

void direct_run(const Conv2dCall& call) {
  const DirectPlan plan = direct_plan(*call.shape, call.share);
  float* gathered = reinterpret_cast<float*>(call.scratch);
  const int64_t block = plan.groups_per_block * plan.rows;
  for (int64_t group = 0; group < call.shape->groups; ++group) {
    for (int64_t first = plan.range.begin; first < plan.range.end; first += block) {
      const int64_t groups = least(plan.groups_per_block, ceil_div(plan.range.end - first, plan.rows));
      gather(call, plan, group, first, groups, gathered);
      for (int64_t p = 0; p < plan.panels; ++p) {
        const PanelSpec spec = panel_spec(plan, group, p);
        const float* panel = call.prepared + (group * plan.panels + p) * plan.panel_floats;
        run_panel(call, plan, {gathered, first, groups, panel, spec.first_row, spec.rows});
      }
    }
  }
}

// Without prepared weights each panel is expanded once per call, and the positions are gathered once more for each.
int64_t direct_pal_scratch_bytes(const Conv2dShape& s) {
  const DirectPlan plan = direct_plan(s, {});
  return direct_gather_bytes(plan) + round_up(plan.panel_floats * static_cast<int64_t>(sizeof(float)), 64);
}

void direct_pal_run(const Conv2dCall& call) {
  const DirectPlan plan = direct_plan(*call.shape, call.share);
  float* gathered = reinterpret_cast<float*>(call.scratch);
  float* panel = reinterpret_cast<float*>(call.scratch + direct_gather_bytes(plan));
  const int64_t block = plan.groups_per_block * plan.rows;
  Palette palette;
  load_palette(*call.shape, *call.weights, &palette);
  for (int64_t group = 0; group < call.shape->groups; ++group) {
    for (int64_t p = 0; p < plan.panels; ++p) {
      const PanelSpec spec = panel_spec(plan, group, p);
      fill_panel(*call.shape, *call.weights, palette, spec, panel);
      for (int64_t first = plan.range.begin; first < plan.range.end; first += block) {
        const int64_t groups = least(plan.groups_per_block, ceil_div(plan.range.end - first, plan.rows));
        if (p == 0 || block < plan.range.end - plan.range.begin) gather(call, plan, group, first, groups, gathered);
        run_panel(call, plan, {gathered, first, groups, panel, spec.first_row, spec.rows});
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
