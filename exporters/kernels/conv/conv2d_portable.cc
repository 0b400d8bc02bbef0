// Convolution as a matrix product without an im2col buffer: a tile of output positions reads its input rows through
// pointers (one per tap and position, a row of zeros outside the input), and 8 output channels at a time accumulate in
// registers. Weights are expanded into panels [k][8] of a few output channels, so scratch does not grow with the layer.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "conv/lanes.h"
#include "conv/panel.h"
#include "conv/variants.h"

namespace voxpress {
namespace {

constexpr int kRows = 4;       // positions per tile: 4 x 8 sums fill eight of SSE2's sixteen registers
constexpr int kMaxPanels = 4;  // panels expanded together, so that their tiles share one set of row pointers
constexpr int64_t kPanelBudgetBytes = 256 << 10;  // beyond one panel; stays inside the L2 cache of a phone's big core

// Scratch, in this order, each part beginning on a 64-byte boundary.
struct Layout {
  int64_t panel_floats;  // of one panel: taps * depth * 8
  int64_t panels;
  int64_t zero_offset_bytes;  // float [depth], zeros
  int64_t rows_offset_bytes;  // const float* [taps][kRows]
  int64_t total_bytes;
};

int64_t round_up_64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

Layout layout_of(const Conv2dShape& shape) {
  const int64_t depth = shape.in_channels / shape.groups;
  const int64_t taps = shape.kernel_frames * shape.kernel_mel;
  const int64_t group_outputs = shape.out_channels / shape.groups;
  Layout layout;
  layout.panel_floats = taps * depth * kPanelLanes;
  const int64_t panel_bytes = layout.panel_floats * static_cast<int64_t>(sizeof(float));
  const int64_t useful = std::min<int64_t>(kMaxPanels, (group_outputs + kPanelLanes - 1) / kPanelLanes);
  layout.panels = std::clamp<int64_t>(kPanelBudgetBytes / panel_bytes, 1, useful);
  layout.zero_offset_bytes = round_up_64(panel_bytes * layout.panels);
  layout.rows_offset_bytes = layout.zero_offset_bytes + round_up_64(depth * static_cast<int64_t>(sizeof(float)));
  layout.total_bytes =
      layout.rows_offset_bytes + round_up_64(taps * kRows * static_cast<int64_t>(sizeof(const float*)));
  return layout;
}

// Up to kRows neighbouring output positions, counted over [batch, frames, mel].
struct Tile {
  int64_t first;
  int rows;
};

// One output channel block of eight: where it lies, and its scale and bias.
struct Block {
  int64_t first_channel;
  int channels;
  const float* panel;
  float scale[kPanelLanes];
  float bias[kPanelLanes];
};

void point_rows(const Conv2dShape& s, const float* input, const float* zeros, const Tile& tile, const float** rows) {
  const int64_t out_mel = conv2d_out_mel(s);
  const int64_t out_frames = conv2d_out_frames(s);
  const int64_t frame_floats = s.in_mel * s.in_channels;
  for (int m = 0; m < kRows; ++m) {
    const float** target = rows + m;
    if (m >= tile.rows) {
      for (int64_t tap = 0; tap < s.kernel_frames * s.kernel_mel; ++tap) target[tap * kRows] = zeros;
      continue;
    }
    const int64_t position = tile.first + m;
    const int64_t line = position / out_mel;
    const int64_t mel0 = position % out_mel * s.stride_mel - s.pad_mel;
    const int64_t frame0 = line % out_frames * s.stride_frames - s.pad_frames;
    const float* utterance = input + line / out_frames * s.in_frames * frame_floats;
    for (int64_t frame = frame0; frame < frame0 + s.kernel_frames; ++frame) {
      const bool frame_inside = frame >= 0 && frame < s.in_frames;
      for (int64_t mel = mel0; mel < mel0 + s.kernel_mel; ++mel, target += kRows) {
        const bool inside = frame_inside && mel >= 0 && mel < s.in_mel;
        *target = inside ? utterance + frame * frame_floats + mel * s.in_channels : zeros;
      }
    }
  }
}

// sum[m][.] = sum over taps and depth of rows[tap][m][i] * panel[tap * depth + i][.]
template <int kTileRows>
inline void multiply(const float* const* rows, int64_t taps, int64_t depth, const float* panel,
                     Lanes (&sum)[kTileRows][2]) {
  for (int m = 0; m < kTileRows; ++m) sum[m][0] = sum[m][1] = Lanes{};
  for (int64_t tap = 0; tap < taps; ++tap, rows += kRows) {
    const float* row[kTileRows];
    for (int m = 0; m < kTileRows; ++m) row[m] = rows[m];
    for (int64_t i = 0; i < depth; ++i, panel += kPanelLanes) {
      const Lanes low = load(panel);
      const Lanes high = load(panel + kLanes);
      for (int m = 0; m < kTileRows; ++m) {
        const Lanes x = broadcast(row[m][i]);
        sum[m][0] += x * low;
        sum[m][1] += x * high;
      }
    }
  }
}

// out = act(scale * sum + bias + residual) for one position
void finish(const Block& block, bool with_relu, const Lanes (&sum)[2], const float* residual, float* out) {
  float lanes[kPanelLanes] = {};
  if (residual != nullptr) {
    std::memcpy(lanes, residual, static_cast<size_t>(block.channels) * sizeof(float));
  }
  float result[kPanelLanes];
  for (int half = 0; half < 2; ++half) {
    const int at = half * kLanes;
    Lanes value = load(block.scale + at) * sum[half] + load(block.bias + at);
    if (residual != nullptr) value += load(lanes + at);
    store(result + at, with_relu ? relu(value) : value);
  }
  std::memcpy(out, result, static_cast<size_t>(block.channels) * sizeof(float));
}

template <int kTileRows>
void run_block(const Conv2dShape& shape, const Conv2dTensors& tensors, const Tile& tile, const Block& block,
               const float* const* rows) {
  Lanes sum[kTileRows][2];
  multiply<kTileRows>(rows, shape.kernel_frames * shape.kernel_mel, shape.in_channels / shape.groups, block.panel, sum);
  for (int m = 0; m < std::min(kTileRows, tile.rows); ++m) {
    const int64_t at = (tile.first + m) * shape.out_channels + block.first_channel;
    finish(block, shape.relu, sum[m], tensors.residual == nullptr ? nullptr : tensors.residual + at,
           tensors.output + at);
  }
}

}  // namespace

size_t conv2d_portable_scratch_bytes(const Conv2dShape& shape) {
  return static_cast<size_t>(layout_of(shape).total_bytes);
}

void conv2d_f32_pal_4x8_portable(const Conv2dShape& shape, const Conv2dWeights& weights, const Conv2dTensors& tensors,
                                 unsigned char* scratch) {
  const Layout layout = layout_of(shape);
  float* panels = reinterpret_cast<float*>(scratch);
  float* zeros = reinterpret_cast<float*>(scratch + layout.zero_offset_bytes);
  const float** rows = reinterpret_cast<const float**>(scratch + layout.rows_offset_bytes);
  const int64_t depth = shape.in_channels / shape.groups;
  const int64_t group_outputs = shape.out_channels / shape.groups;
  const int64_t positions = shape.batch * conv2d_out_frames(shape) * conv2d_out_mel(shape);
  std::fill(zeros, zeros + depth, 0.0f);
  Palette palette;
  load_palette(shape, weights, &palette);
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t group_end = (group + 1) * group_outputs;
    for (int64_t channel = group * group_outputs; channel < group_end;) {
      Block blocks[kMaxPanels];
      int count = 0;
      for (; count < layout.panels && channel < group_end; ++count, channel += kPanelLanes) {
        Block& block = blocks[count];
        float* panel = panels + count * layout.panel_floats;
        block.first_channel = channel;
        block.channels = static_cast<int>(std::min<int64_t>(kPanelLanes, group_end - channel));
        block.panel = panel;
        load_floats(weights.scale, channel, block.channels, kPanelLanes, block.scale);
        load_floats(weights.bias, channel, block.channels, kPanelLanes, block.bias);
        const PanelSpec spec{layout.panel_floats / kPanelLanes, channel, block.channels, kPanelLanes};
        fill_panel(shape, weights, palette, spec, panel);
      }
      for (Tile tile{0, 0}; tile.first < positions; tile.first += tile.rows) {
        tile.rows = static_cast<int>(std::min<int64_t>(kRows, positions - tile.first));
        point_rows(shape, tensors.input + group * depth, zeros, tile, rows);
        for (int b = 0; b < count; ++b) {
          if (tile.rows == 1) {
            run_block<1>(shape, tensors, tile, blocks[b], rows);
          } else {
            run_block<kRows>(shape, tensors, tile, blocks[b], rows);
          }
        }
      }
    }
  }
}

}  // namespace voxpress
