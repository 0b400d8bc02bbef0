// 3x3 convolution with stride 1 as F(mxm,3x3): tiles of n x n inputs (n = m + 2, one every m positions) are
// transformed, n * n matrix products over the input channels follow, and each n x n of sums is transformed to m x m
// outputs.
//
// Tiles are numbered over [batch, frames / m, mel / m] and taken in groups of equally many, several groups to a block
// whose transformed inputs stay in the L2 cache. Each group then passes through all products of one panel of 3x3
// weights, and its sums are transformed and written before the next group begins.
#pragma once

#include "bitpack/unpack.h"
#include "conv/gemm.h"
#include "conv/panel.h"
#include "winograd/transforms.h"

namespace voxpress {
namespace {

constexpr int64_t kTileBudgetBytes = 512 << 10;  // of transformed inputs in a block
// Weights that are expanded at each call take room from the cache anyway, and inputs that all lie in one block are
// transformed only once.
constexpr int64_t kPalTileBudgetBytes = 1280 << 10;
constexpr int64_t kPalPanelBudgetBytes = 640 << 10;  // of panels that are expanded before the blocks go over them

template <typename F>
struct WinogradPlan {
  static constexpr int kPoints = F::kIn * F::kIn;
  static constexpr int64_t kPointGap = 16;  // lest all points fall into the same cache set

  int64_t out_frames;
  int64_t out_mel;
  int64_t tiles_frames;
  int64_t tiles_mel;
  Range range;           // of tiles
  int64_t depth_blocks;  // of kLanes input channels
  int64_t panels;
  // Of prepared weights, a panel and a point of it: [point][depth][kPanel], a gap behind each point.
  int64_t panel_floats;
  int64_t panel_point_floats;
  int64_t rows;  // tiles per group
  // Of a group's transformed inputs: [point][depth_blocks][rows][kLanes], likewise.
  int64_t point_floats;
  int64_t group_floats;
  int64_t groups_per_block;
  int64_t budget_bytes;

  static int64_t panel_point_floats_of(const Conv2dShape& s) { return s.in_channels * kPanel + kPointGap; }

  WinogradPlan(const Conv2dShape& s, const Share& share, int64_t budget) {
    budget_bytes = budget;
    out_frames = conv2d_out_frames(s);
    out_mel = conv2d_out_mel(s);
    tiles_frames = ceil_div(out_frames, F::kOut);
    tiles_mel = ceil_div(out_mel, F::kOut);
    range = share_of(s.batch * tiles_frames * tiles_mel, share);
    const int64_t tiles = most(1, range.end - range.begin);
    depth_blocks = ceil_div(s.in_channels, kLanes);
    panels = ceil_div(s.out_channels, kPanel);
    panel_point_floats = panel_point_floats_of(s);
    panel_floats = kPoints * panel_point_floats;
    rows = rows_per_group(tiles);
    point_floats = depth_blocks * rows * kLanes + kPointGap;
    group_floats = kPoints * point_floats;
    const int64_t fitting = budget_bytes / (group_floats * static_cast<int64_t>(sizeof(float)));
    groups_per_block = most(1, least(fitting, ceil_div(tiles, rows)));
  }

  // Scratch: a row of zeros, the transformed inputs of a block, the sums of a group [rows][point][kPanel]; enough for
  // every share of the tiles, and with it any number of rows.
  int64_t zeros_bytes() const { return round_up(depth_blocks * kLanes * static_cast<int64_t>(sizeof(float)), 64); }
  int64_t inputs_bytes() const {
    const int64_t largest_group = kPoints * (depth_blocks * kRows * kLanes + kPointGap);
    return round_up(most(budget_bytes, largest_group * static_cast<int64_t>(sizeof(float))), 64);
  }
  int64_t sums_bytes() const { return kRows * kPoints * kPanel * static_cast<int64_t>(sizeof(float)); }
};

// A tile's place in the output.
struct TilePlace {
  int64_t n, frame, mel;
};

template <typename F>
TilePlace place_of(const WinogradPlan<F>& plan, int64_t tile) {
  const int64_t line = tile / plan.tiles_mel;
  return {line / plan.tiles_frames, line % plan.tiles_frames * F::kOut, tile % plan.tiles_mel * F::kOut};
}

// The inputs of a tile that lies in the input as a whole: nearly all of them.
struct PlainPixels {
  const float* first;
  int64_t line_floats;
  int64_t pixel_floats;

  VOXPRESS_INLINE Lanes load_at(int i, int j, int64_t channel) const {
    return load(first + channel + j * pixel_floats + i * line_floats);
  }
};

// Pointers to all of its inputs, [i * n + j], of which the first `channels` from the channel on exist.
template <typename F>
struct AnyPixels {
  const float* pixels[F::kIn * F::kIn];
  int64_t channels = kLanes;

  VOXPRESS_INLINE Lanes load_at(int i, int j, int64_t channel) const {
    return load_first(pixels[i * F::kIn + j] + channel, channels);
  }
};

// Transforms kLanes channels of a tile.
template <typename F, typename Pixels>
VOXPRESS_INLINE void transform_input(const Pixels& pixels, int64_t channel, float* target, int64_t point_floats) {
  Lanes half[F::kIn][F::kIn];
  VOXPRESS_UNROLL
  for (int j = 0; j < F::kIn; ++j) {
    Lanes d[F::kIn], v[F::kIn];
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kIn; ++i) d[i] = pixels.load_at(i, j, channel);
    F::input(d, v);
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kIn; ++i) half[i][j] = v[i];
  }
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kIn; ++i) {
    Lanes v[F::kIn];
    F::input(half[i], v);
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kIn; ++j) store(target + (i * F::kIn + j) * point_floats, v[j]);
  }
}

// Transforms all channels of one tile into row `m` of a group.
template <typename F>
void transform_tile(const Conv2dCall& call, const WinogradPlan<F>& plan, int64_t tile, const float* zeros,
                    float* target) {
  const Conv2dShape& s = *call.shape;
  const TilePlace place = place_of(plan, tile);
  const int64_t frame0 = place.frame - s.pad_frames;
  const int64_t mel0 = place.mel - s.pad_mel;
  const float* utterance = call.tensors->input + place.n * s.in_frames * s.in_mel * s.in_channels;
  const bool inside = frame0 >= 0 && frame0 + F::kIn <= s.in_frames && mel0 >= 0 && mel0 + F::kIn <= s.in_mel;
  if (inside && s.in_channels % kLanes == 0) {
    const PlainPixels pixels{utterance + (frame0 * s.in_mel + mel0) * s.in_channels, s.in_mel * s.in_channels,
                             s.in_channels};
    for (int64_t channel = 0; channel < s.in_channels; channel += kLanes, target += plan.rows * kLanes) {
      transform_input<F>(pixels, channel, target, plan.point_floats);
    }
    return;
  }
  AnyPixels<F> pixels;
  for (int i = 0; i < F::kIn; ++i) {
    const int64_t frame = frame0 + i;
    const bool frame_inside = frame >= 0 && frame < s.in_frames;
    for (int j = 0; j < F::kIn; ++j) {
      const int64_t mel = mel0 + j;
      const bool there = frame_inside && mel >= 0 && mel < s.in_mel;
      pixels.pixels[i * F::kIn + j] = there ? utterance + (frame * s.in_mel + mel) * s.in_channels : zeros;
    }
  }
  for (int64_t channel = 0; channel < s.in_channels; channel += kLanes, target += plan.rows * kLanes) {
    pixels.channels = s.in_channels - channel;
    transform_input<F>(pixels, channel, target, plan.point_floats);
  }
}

// The first half of a tile's output transform, along its columns, for kLanes channels of sums [point][kPanel].
template <typename F>
VOXPRESS_INLINE void transform_output_columns(const float* sums, Lanes (&half)[F::kOut][F::kIn]) {
  VOXPRESS_UNROLL
  for (int j = 0; j < F::kIn; ++j) {
    Lanes m[F::kIn], y[F::kOut];
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kIn; ++i) m[i] = load(sums + (i * F::kIn + j) * kPanel);
    F::output(m, y);
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kOut; ++i) half[i][j] = y[i];
  }
}

// Transforms kLanes output channels of a tile, from sums [point][kPanel], and writes what of it lies in the output.
template <typename F>
VOXPRESS_INLINE void transform_output(const Conv2dCall& call, const WinogradPlan<F>& plan, const TilePlace& place,
                                      const float* sums, int64_t channel) {
  const Conv2dShape& s = *call.shape;
  Lanes half[F::kOut][F::kIn];
  transform_output_columns<F>(sums, half);
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kOut; ++i) {
    if (place.frame + i >= plan.out_frames) break;
    Lanes y[F::kOut];
    F::output(half[i], y);
    const int64_t line = (place.n * plan.out_frames + place.frame + i) * plan.out_mel + place.mel;
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kOut; ++j) {
      if (place.mel + j < plan.out_mel) {
        finish(call, channel, (line + j) * s.out_channels + channel, s.out_channels - channel, y[j]);
      }
    }
  }
}

// The same for kLanes channels of a tile that lies in the output as a whole: nearly all of them.
struct PlainTile {
  const float* scale;
  const float* bias;
  const float* residual;
  float* output;
  int64_t line_floats;   // from one output line to the next
  int64_t pixel_floats;  // from one output to the next
};

template <typename F, bool kResidual, bool kRelu>
__attribute__((noinline)) void transform_plain_output(const float* sums, const PlainTile& at) {
  Lanes half[F::kOut][F::kIn];
  transform_output_columns<F>(sums, half);
  const Lanes scale = load(at.scale);
  const Lanes bias = load(at.bias);
  const float* residual = at.residual;
  float* output = at.output;
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kOut; ++i, output += at.line_floats) {
    Lanes y[F::kOut];
    F::output(half[i], y);
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kOut; ++j) {
      Lanes value = scale * y[j] + bias;
      if constexpr (kResidual) value += load(residual + j * at.pixel_floats);
      store(output + j * at.pixel_floats, kRelu ? relu(value) : value);
    }
    if constexpr (kResidual) residual += at.line_floats;
  }
}

template <typename F>
auto plain_output(bool residual, bool relu) {
  if (residual) return relu ? transform_plain_output<F, true, true> : transform_plain_output<F, true, false>;
  return relu ? transform_plain_output<F, false, true> : transform_plain_output<F, false, false>;
}

// All channels of a panel of one tile.
template <typename F>
void write_tile(const Conv2dCall& call, const WinogradPlan<F>& plan, const TilePlace& place, const float* sums,
                int64_t first_channel) {
  const int64_t channels = call.shape->out_channels;
  const float* residual = call.tensors->residual;
  const auto write_plain = plain_output<F>(residual != nullptr, call.shape->relu);
  const bool inside = place.frame + F::kOut <= plan.out_frames && place.mel + F::kOut <= plan.out_mel;
  const int64_t position = (place.n * plan.out_frames + place.frame) * plan.out_mel + place.mel;
  for (int v = 0; v < kVectors && first_channel + v * kLanes < channels; ++v) {
    const int64_t channel = first_channel + v * kLanes;
    if (!inside || channel + kLanes > channels) {
      transform_output(call, plan, place, sums + v * kLanes, channel);
      continue;
    }
    const int64_t at = position * channels + channel;
    write_plain(sums + v * kLanes,
                {call.scale + channel, call.bias + channel, residual == nullptr ? nullptr : residual + at,
                 call.tensors->output + at, plan.out_mel * channels, channels});
  }
}

// One panel over the groups of a block: products, then outputs, group by group.
template <typename F>
struct WinogradJob {
  const WinogradPlan<F>* plan;
  const float* inputs;
  int64_t first_tile;
  int64_t groups;
  const float* panel;
  int64_t first_channel;
  float* sums;
};

template <typename F>
struct Products {
  template <int kR>
  struct Run {
    static void run(const Conv2dCall& call, const WinogradJob<F>& job) {
      constexpr int kPoints = WinogradPlan<F>::kPoints;
      const WinogradPlan<F>& plan = *job.plan;
      const int64_t depth = call.shape->in_channels;
      for (int64_t g = 0; g < job.groups; ++g) {
        const float* inputs = job.inputs + g * plan.group_floats;
        for (int point = 0; point < kPoints; ++point) {
          Lanes sum[kR][kVectors];
          multiply<kR>(inputs + point * plan.point_floats, job.panel + point * plan.panel_point_floats, depth, sum);
          store_sums<kR>(sum, kPoints * kPanel, job.sums + point * kPanel);
        }
        const int64_t first = job.first_tile + g * kR;
        for (int m = 0; m < kR && first + m < plan.range.end; ++m) {
          write_tile(call, plan, place_of(plan, first + m), job.sums + m * kPoints * kPanel, job.first_channel);
        }
      }
    }
  };
};

// Where in the scratch things lie.
template <typename F>
struct WinogradScratch {
  float* zeros;
  float* inputs;
  float* sums;

  WinogradScratch(const WinogradPlan<F>& plan, unsigned char* at) {
    zeros = reinterpret_cast<float*>(at);
    inputs = reinterpret_cast<float*>(at + plan.zeros_bytes());
    sums = reinterpret_cast<float*>(at + plan.zeros_bytes() + plan.inputs_bytes());
  }
  static int64_t bytes(const WinogradPlan<F>& plan) {
    return plan.zeros_bytes() + plan.inputs_bytes() + plan.sums_bytes();
  }
};

template <typename F>
int64_t winograd_scratch_bytes(const Conv2dShape& s) {
  return WinogradScratch<F>::bytes(WinogradPlan<F>(s, {}, kTileBudgetBytes));
}

template <typename F>
void transform_block(const Conv2dCall& call, const WinogradPlan<F>& plan, const WinogradScratch<F>& scratch,
                     int64_t first, int64_t groups) {
  for (int64_t row = 0; row < groups * plan.rows; ++row) {
    // Rows behind the last tile are multiplied like the others, and not written: any tile does for them.
    const int64_t tile = least(first + row, plan.range.end - 1);
    transform_tile(call, plan, tile, scratch.zeros,
                   scratch.inputs + row / plan.rows * plan.group_floats + row % plan.rows * kLanes);
  }
}

// Panels [panel, end), of which `weights` holds the first, over all tiles. Inputs are transformed unless they all lie
// in the scratch already.
template <typename F>
void run_panels(const Conv2dCall& call, const WinogradPlan<F>& plan, const WinogradScratch<F>& scratch, Range panels,
                const float* weights, bool transformed) {
  const int64_t block = plan.groups_per_block * plan.rows;
  for (int64_t first = plan.range.begin; first < plan.range.end; first += block) {
    const int64_t groups = least(plan.groups_per_block, ceil_div(plan.range.end - first, plan.rows));
    if (!transformed || block < plan.range.end - plan.range.begin) transform_block(call, plan, scratch, first, groups);
    for (int64_t p = panels.begin; p < panels.end; ++p) {
      const float* panel = weights + (p - panels.begin) * plan.panel_floats;
      const WinogradJob<F> job{&plan, scratch.inputs, first, groups, panel, p * kPanel, scratch.sums};
      WithRows<Products<F>::template Run, kRows>::run(plan.rows, call, job);
    }
  }
}

template <typename F>
void winograd_run(const Conv2dCall& call) {
  const WinogradPlan<F> plan(*call.shape, call.share, kTileBudgetBytes);
  const WinogradScratch<F> scratch(plan, call.scratch);
  for (int64_t j = 0; j < plan.depth_blocks * kLanes; ++j) scratch.zeros[j] = 0.0f;
  run_panels(call, plan, scratch, {0, plan.panels}, call.prepared, false);
}

template <typename F>
int64_t winograd_prepared_floats(const Conv2dShape& s) {
  // Of the geometry only: batch, frames and mel have no part in it.
  return ceil_div(s.out_channels, kPanel) * WinogradPlan<F>::kPoints * WinogradPlan<F>::panel_point_floats_of(s);
}

// Weights of kLanes output channels and one input channel, G w G^T in double.
typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));

template <typename F>
VOXPRESS_INLINE void transform_weights(const float* taps, int64_t tap_floats, float* target, int64_t point_floats) {
  Doubles half[F::kIn][3];
  VOXPRESS_UNROLL
  for (int j = 0; j < 3; ++j) {
    Doubles g[3], u[F::kIn];
    VOXPRESS_UNROLL
    for (int i = 0; i < 3; ++i) g[i] = __builtin_convertvector(load(taps + (i * 3 + j) * tap_floats), Doubles);
    F::weights(g, u);
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kIn; ++i) half[i][j] = u[i];
  }
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kIn; ++i) {
    Doubles u[F::kIn];
    F::weights(half[i], u);
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kIn; ++j) {
      store(target + (i * F::kIn + j) * point_floats, __builtin_convertvector(u[j], Lanes));
    }
  }
}

constexpr int64_t kDecodeChunk = 64;  // input channels decoded at a time
constexpr int64_t kPackChunk = 16;    // of them transposed at a time

// Filters of a panel, for kDecodeChunk input channels.
class Filters {
 public:
  Filters(const Conv2dShape& s, const Conv2dWeights& weights, const Palette& palette, int64_t panel)
      : s_(s), weights_(weights), palette_(palette), first_(panel * kPanel) {
    rows_ = least(kPanel, s.out_channels - first_);
  }

  void decode(int64_t channel, int64_t count) {
    channel_ = channel;
    if (s_.bits == 32) return;
    for (int64_t j = 0; j < rows_; ++j) {
      for (int64_t tap = 0; tap < 9; ++tap) {
        unpack_codes(weights_.codes, weights_.codes_bytes, s_.bits, place(j, tap), count, codes_[j][tap]);
      }
    }
  }

  // taps[tap][c][j] of channels from `from` on, of those that have been decoded.
  void copy(int64_t from, int64_t count, float (&taps)[9][kPackChunk][kPanel]) const {
    for (int64_t j = 0; j < rows_; ++j) {
      for (int64_t tap = 0; tap < 9; ++tap) {
        if (s_.bits == 32) {
          float values[kPackChunk];
          decode_weights(s_, weights_, palette_, place(j, tap) + from, count, values);
          for (int64_t c = 0; c < count; ++c) taps[tap][c][j] = values[c];
        } else {
          const uint8_t* codes = codes_[j][tap] + from;
          for (int64_t c = 0; c < count; ++c) taps[tap][c][j] = palette_.values[codes[c]];
        }
      }
    }
  }

 private:
  int64_t place(int64_t j, int64_t tap) const { return ((first_ + j) * 9 + tap) * s_.in_channels + channel_; }

  const Conv2dShape& s_;
  const Conv2dWeights& weights_;
  const Palette& palette_;
  int64_t first_, rows_;
  int64_t channel_ = 0;
  uint8_t codes_[kPanel][9][kDecodeChunk];
};

template <typename F>
void fill_winograd_panel(const Conv2dShape& s, const Conv2dWeights& weights, const Palette& palette, int64_t panel,
                         float* prepared) {
  const int64_t point_floats = WinogradPlan<F>::panel_point_floats_of(s);
  Filters filters(s, weights, palette, panel);
  float taps[9][kPackChunk][kPanel] = {};
  for (int64_t c0 = 0; c0 < s.in_channels; c0 += kPackChunk) {
    if (c0 % kDecodeChunk == 0) filters.decode(c0, least(kDecodeChunk, s.in_channels - c0));
    const int64_t count = least(kPackChunk, s.in_channels - c0);
    filters.copy(c0 % kDecodeChunk, count, taps);
    for (int64_t c = 0; c < count; ++c) {
      for (int v = 0; v < kVectors; ++v) {
        transform_weights<F>(taps[0][c] + v * kLanes, kPackChunk * kPanel, prepared + (c0 + c) * kPanel + v * kLanes,
                             point_floats);
      }
    }
  }
  for (int point = 0; point < WinogradPlan<F>::kPoints; ++point) {
    std::memset(prepared + (point + 1) * point_floats - WinogradPlan<F>::kPointGap, 0,
                WinogradPlan<F>::kPointGap * sizeof(float));
  }
}

template <typename F>
void winograd_pack(const Conv2dShape& s, const Conv2dWeights& weights, float* prepared) {
  const WinogradPlan<F> plan(s, {}, kTileBudgetBytes);
  Palette palette;
  load_palette(s, weights, &palette);
  for (int64_t p = 0; p < plan.panels; ++p) {
    fill_winograd_panel<F>(s, weights, palette, p, prepared + p * plan.panel_floats);
  }
}

// Without prepared weights: some panels are expanded, go over all tiles, and the next take their place.
template <typename F>
int64_t pal_panels(const WinogradPlan<F>& plan) {
  const int64_t panel_bytes = plan.panel_floats * static_cast<int64_t>(sizeof(float));
  return most(1, least(kPalPanelBudgetBytes / panel_bytes, plan.panels));
}

template <typename F>
int64_t winograd_pal_scratch_bytes(const Conv2dShape& s) {
  const WinogradPlan<F> plan(s, {}, kPalTileBudgetBytes);
  return WinogradScratch<F>::bytes(plan) + pal_panels(plan) * plan.panel_floats * static_cast<int64_t>(sizeof(float));
}

// Threads share the panels where there are enough, or each of them would expand all weights for its tiles.
constexpr int64_t kFewestPanels = 2;  // of a thread

template <typename F>
void winograd_pal_run(const Conv2dCall& call) {
  const int64_t all_panels = ceil_div(call.shape->out_channels, kPanel);
  const bool by_panels = all_panels >= kFewestPanels * call.share.parts;
  const WinogradPlan<F> plan(*call.shape, by_panels ? Share{} : call.share, kPalTileBudgetBytes);
  const Range panels = by_panels ? share_of(all_panels, call.share) : Range{0, all_panels};
  const WinogradScratch<F> scratch(plan, call.scratch);
  auto* weights = reinterpret_cast<float*>(call.scratch + WinogradScratch<F>::bytes(plan));
  for (int64_t j = 0; j < plan.depth_blocks * kLanes; ++j) scratch.zeros[j] = 0.0f;
  Palette palette;
  load_palette(*call.shape, *call.weights, &palette);
  for (int64_t panel = panels.begin; panel < panels.end; panel += pal_panels(plan)) {
    const int64_t end = least(panel + pal_panels(plan), panels.end);
    for (int64_t p = panel; p < end; ++p) {
      fill_winograd_panel<F>(*call.shape, *call.weights, palette, p, weights + (p - panel) * plan.panel_floats);
    }
    run_panels(call, plan, scratch, {panel, end}, weights, panel > panels.begin);
  }
}

// Few channels do not pay for the transforms.
constexpr int64_t kFewestChannels = 8;
// From here on the 36 / 9 times larger weights of F(4x4) cost more time to read than its products save.
constexpr int64_t kMostWeights4 = 192 * 192;

bool winograd2_takes(const Conv2dShape& s) {
  return s.kernel_frames == 3 && s.kernel_mel == 3 && s.stride_frames == 1 && s.stride_mel == 1 && s.groups == 1 &&
         s.in_channels >= kFewestChannels && s.out_channels >= kFewestChannels && fills_vectors(s.out_channels);
}

bool winograd4_takes(const Conv2dShape& s) {
  return winograd2_takes(s) && s.in_channels <= kMostWeights4 / s.out_channels;
}

}  // namespace
}  // namespace voxpress
