// 3x3 convolution of bytes with stride 1 as F(mxm,3x3) in integers: see winograd/winograd.h for how tiles, groups and
// blocks go, conv2d_u8_portable.cc for what is computed.
//
// Vectors of bytes hold the channels of one tile or, where there are no more channels than half a vector has bytes,
// those of two neighbouring tiles (if kHalves): kTiles.
#pragma once

#include "conv_u8/finish.h"
#include "conv_u8/multiply.h"
#include "conv_u8/rounding.h"
#include "conv_u8/weights.h"
#include "winograd/integer_transforms.h"

namespace voxpress {
namespace {

constexpr int64_t kTileBudgetBytes = 256 << 10;  // of transformed inputs in a block

template <typename F>
struct WinogradPlan {
  static constexpr int kPoints = F::kIn * F::kIn;
  static constexpr int kPointsRound = (kPoints + 15) / 16 * 16;

  int64_t out_frames, out_mel;
  int64_t tiles_frames, tiles_mel;
  Range range;            // of tiles
  int64_t slot_channels;  // of a row: kBytes, or half of it
  int64_t slots;          // of a row
  int64_t steps;          // of kDepth input channels
  int64_t panels;
  int64_t rows;         // tiles per group
  int64_t point_bytes;  // of a group's inputs at one point, some room behind it
  int64_t group_bytes;
  int64_t groups_per_block;

  WinogradPlan(const Conv2dShape& s, const Share& share) {
    out_frames = conv2d_out_frames(s);
    out_mel = conv2d_out_mel(s);
    tiles_frames = ceil_div(out_frames, F::kOut);
    tiles_mel = ceil_div(out_mel, F::kOut);
    range = share_of(s.batch * tiles_frames * tiles_mel, share);
    slot_channels = kHalves && s.in_channels <= kBytes / 2 ? kBytes / 2 : kBytes;
    slots = ceil_div(s.in_channels, slot_channels);
    steps = ceil_div(s.in_channels, kDepth);
    panels = ceil_div(s.out_channels, kPanel);
    const int64_t tiles = most(1, range.end - range.begin);
    rows = ceil_div(tiles, ceil_div(tiles, kRows));
    point_bytes = round_up(rows * row_bytes(), 64) + 64;
    group_bytes = kPoints * point_bytes;
    groups_per_block = most(1, least(kTileBudgetBytes / group_bytes, ceil_div(tiles, rows)));
  }

  int64_t row_bytes() const { return slots * slot_channels * kInputBytes; }
  int64_t block_tiles() const { return groups_per_block * rows; }
};

// Of a panel of prepared weights: factors and starts, each [point][kPanel], then [point][steps][kPanel][kDepth].
template <typename F>
struct PreparedPanel {
  static constexpr int64_t kArray = WinogradPlan<F>::kPoints * kPanel;
  const float* factors;
  const int32_t* starts;
  const int8_t* weights;

  static int64_t bytes(int64_t steps) { return kArray * 8 + WinogradPlan<F>::kPoints * steps * kStepBytes; }
  PreparedPanel(const unsigned char* prepared, int64_t panel, int64_t steps) {
    prepared += panel * bytes(steps);
    factors = reinterpret_cast<const float*>(prepared);
    starts = reinterpret_cast<const int32_t*>(prepared) + kArray;
    weights = reinterpret_cast<const int8_t*>(prepared + kArray * 8);
  }
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

// pixels[p] points to the input channels at point p of the tile, or to `zeros`.
template <typename F>
void find_pixels(const Conv2dU8Call& call, const TilePlace& place, const uint8_t* zeros, const uint8_t** pixels) {
  const Conv2dShape& s = call.shape->conv;
  const uint8_t* utterance =
      static_cast<const uint8_t*>(call.tensors->input) + place.n * s.in_frames * s.in_mel * s.in_channels;
  for (int i = 0; i < F::kIn; ++i) {
    const int64_t frame = place.frame - s.pad_frames + i;
    const bool frame_inside = frame >= 0 && frame < s.in_frames;
    for (int j = 0; j < F::kIn; ++j) {
      const int64_t mel = place.mel - s.pad_mel + j;
      const bool inside = frame_inside && mel >= 0 && mel < s.in_mel;
      pixels[i * F::kIn + j] = inside ? utterance + (frame * s.in_mel + mel) * s.in_channels : zeros;
    }
  }
}

// A vector of input channels of kTiles tiles: `count` from `channel` on, the zero point behind them.
template <int kTiles, bool kWhole>
VOXPRESS_INLINE U8s load_pixel(const uint8_t* const* first, int64_t tile_pixels, int64_t channel, int64_t count,
                               const uint8_t* zeros) {
  constexpr int kSlot = kBytes / kTiles;
  if constexpr (kTiles == 1 && kWhole) {
    return load<U8s>(first[0] + channel);
  } else {
    alignas(kBytes) uint8_t bytes[kBytes];
    for (int tile = 0; tile < kTiles; ++tile) {
      if constexpr (kWhole) {
        std::memcpy(bytes + tile * kSlot, first[tile * tile_pixels] + channel, kSlot);
      } else {
        std::memcpy(bytes + tile * kSlot, first[tile * tile_pixels] + channel, static_cast<size_t>(count));
        std::memcpy(bytes + tile * kSlot + count, zeros, static_cast<size_t>(kSlot - count));
      }
    }
    return load<U8s>(bytes);
  }
}

// Transforms one vector of input channels: wide[point][0..2) 16-bit vectors `step` apart, the largest magnitudes of
// each point into `largest`.
template <typename F, int kTiles, bool kWhole, bool kFirst>
VOXPRESS_INLINE void transform_vector(const uint8_t* const* pixels, int64_t channel, int64_t count,
                                      const uint8_t* zeros, int16_t correction, S16s* wide, int64_t step,
                                      U16s* largest) {
  constexpr int n = F::kIn;
  S16s half[2][n][n];
  for (int j = 0; j < n; ++j) {
    S16s low[n], high[n], v[n];
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) {
      const U8s d = load_pixel<kTiles, kWhole>(pixels + i * n + j, n * n, channel, count, zeros);
      low[i] = widen_low(d);
      high[i] = widen_high(d);
    }
    F::input(low, v);
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) half[0][i][j] = v[i];
    F::input(high, v);
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) half[1][i][j] = v[i];
  }
  for (int i = 0; i < n; ++i) {
    S16s low[n], high[n];
    F::input(half[0][i], low);
    F::input(half[1][i], high);
    if (i == 1) {  // the only point where the transform of a constant is not zero
      low[1] = low[1] - correction;
      high[1] = high[1] - correction;
    }
    VOXPRESS_UNROLL
    for (int j = 0; j < n; ++j) {
      const int p = i * n + j;
      wide[p * step] = low[j];
      wide[p * step + 1] = high[j];
      const U16s both = larger(magnitude(low[j]), magnitude(high[j]));
      largest[p] = kFirst ? both : larger(largest[p], both);
    }
  }
}

// The factors of rounding.h from the largest magnitudes, as pairs of negative 16-bit numbers, and what one is worth.
VOXPRESS_INLINE void round_factors(const int32_t* largest, int32_t* pairs, float* steps) {
  const S32s size = load<S32s>(largest);
  const S32s divided = __builtin_convertvector(broadcast(kRoundNumerator) / __builtin_convertvector(size, F32s), S32s);
  const S32s one = S32s{} + 32768;
  const S32s factor = size <= 127 ? one : divided;
  store(steps, broadcast(kRoundOne) / __builtin_convertvector(factor, F32s));
  store(pairs, ((0 - factor) & 0xffff) | ((0 - factor) << 16));
}

// Transforms and rounds kTiles tiles into neighbouring rows of a group, from `target` on.
template <typename F, int kTiles>
void transform_tiles(const Conv2dU8Call& call, const WinogradPlan<F>& plan, const uint8_t* const* pixels,
                     const uint8_t* zeros, S16s* wide, uint8_t* target, float* steps) {
  constexpr int kPoints = WinogradPlan<F>::kPoints;
  constexpr int kPointsRound = WinogradPlan<F>::kPointsRound;
  constexpr int kSlot = kBytes / kTiles;
  const int64_t channels = call.shape->conv.in_channels;
  const auto correction = static_cast<int16_t>(F::kConstant * call.shape->in.zero);
  const int64_t step = 2 * plan.slots;
  U16s largest[kPointsRound];
  for (int p = kPoints; p < kPointsRound; ++p) largest[p] = U16s{};
  for (int64_t slot = 0; slot < plan.slots; ++slot) {
    const int64_t channel = slot * kSlot;
    const int64_t count = least(kSlot, channels - channel);
    S16s* at = wide + 2 * slot;
    if (count == kSlot) {
      if (slot == 0) {
        transform_vector<F, kTiles, true, true>(pixels, channel, count, zeros, correction, at, step, largest);
      } else {
        transform_vector<F, kTiles, true, false>(pixels, channel, count, zeros, correction, at, step, largest);
      }
    } else if (slot == 0) {
      transform_vector<F, kTiles, false, true>(pixels, channel, count, zeros, correction, at, step, largest);
    } else {
      transform_vector<F, kTiles, false, false>(pixels, channel, count, zeros, correction, at, step, largest);
    }
  }
  alignas(64) int32_t sizes[2][kPointsRound];
  alignas(64) int32_t pairs[2][kPointsRound];
  for (int p = 0; p < kPointsRound; p += 8) {
    if constexpr (kHalves) {
      int32_t found[16];
      largest_of_eight(largest + p, found);
      for (int j = 0; j < 8; ++j) {
        const int32_t both = found[j] > found[8 + j] ? found[j] : found[8 + j];
        sizes[0][p + j] = kTiles == 1 ? both : found[j];
        sizes[1][p + j] = found[8 + j];
      }
    } else {
      largest_of_eight(largest + p, sizes[0] + p);
    }
  }
  for (int tile = 0; tile < kTiles; ++tile) {
    for (int p = 0; p < kPointsRound; p += kInts) {
      round_factors(sizes[tile] + p, pairs[tile] + p, steps + tile * kPointsRound + p);
    }
  }
  for (int p = 0; p < kPoints; ++p) {
    S32s factor = pairs[0][p] - S32s{};
    if constexpr (kTiles == 2) factor = halves(factor, pairs[1][p] - S32s{});
    uint8_t* row = target + p * plan.point_bytes;
    for (int64_t slot = 0; slot < plan.slots; ++slot, row += plan.rows * kSlot * kInputBytes) {
      store_inputs(row, round_product(wide[p * step + 2 * slot], (S16s)factor),
                   round_product(wide[p * step + 2 * slot + 1], (S16s)factor));
    }
  }
}

// The sums of the inputs of the windows of a tile, one for each of its outputs.
template <typename F>
void sum_windows(const Conv2dU8Call& call, const uint8_t* const* pixels, float* windows) {
  const int64_t channels = call.shape->conv.in_channels;
  int32_t sums[WinogradPlan<F>::kPoints];
  for (int p = 0; p < WinogradPlan<F>::kPoints; ++p) {
    int32_t sum = 0;
    for (int64_t c = 0; c < channels; ++c) sum += pixels[p][c];
    sums[p] = sum - static_cast<int32_t>(channels) * call.shape->in.zero;
  }
  for (int i = 0; i < F::kOut; ++i) {
    for (int j = 0; j < F::kOut; ++j) {
      int32_t sum = 0;
      for (int tap = 0; tap < 9; ++tap) sum += sums[(i + tap / 3) * F::kIn + j + tap % 3];
      windows[i * F::kOut + j] = static_cast<float>(sum);
    }
  }
}

// Transforms kInts output channels of a tile, from sums [point][kPanel], and writes what of it lies in the output.
template <typename F>
struct OutputJob {
  const int32_t* sums;
  const float* steps;    // of the tile
  const float* factors;  // [point][kPanel]
  const float* windows;
  int64_t channel;
};

template <typename F>
VOXPRESS_INLINE void transform_output(const Conv2dU8Call& call, const WinogradPlan<F>& plan, const FinishLanes& lanes,
                                      const TilePlace& place, const OutputJob<F>& job) {
  constexpr int n = F::kIn;
  F32s half[F::kOut][n];
  VOXPRESS_UNROLL
  for (int j = 0; j < n; ++j) {
    F32s m[n], y[F::kOut];
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) {
      const int p = i * n + j;
      const F32s sum = __builtin_convertvector(load<S32s>(job.sums + p * kPanel), F32s);
      m[i] = (sum * broadcast(job.steps[p])) * load<F32s>(job.factors + p * kPanel);
    }
    F::output(m, y);
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kOut; ++i) half[i][j] = y[i];
  }
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kOut; ++i) {
    if (place.frame + i >= plan.out_frames) break;
    F32s y[F::kOut];
    F::output(half[i], y);
    const int64_t line = (place.n * plan.out_frames + place.frame + i) * plan.out_mel + place.mel;
    finish<F::kOut>(call, lanes,
                    {line * call.shape->conv.out_channels + job.channel, job.channel, plan.out_mel - place.mel},
                    job.windows + i * F::kOut, y);
  }
}

// One panel over the groups of a block: products, then outputs, group by group.
template <typename F>
struct WinogradJob {
  const WinogradPlan<F>* plan;
  const uint8_t* inputs;
  const float* steps;
  const float* windows;
  int64_t first_tile;
  int64_t groups;
  int64_t panel;
  int32_t* sums;
};

template <typename F, int kSlot>
struct Products {
  template <int kR>
  struct Run {
    static void run(const Conv2dU8Call& call, const WinogradJob<F>& job) {
      constexpr int kPoints = WinogradPlan<F>::kPoints;
      const WinogradPlan<F>& plan = *job.plan;
      const PreparedPanel<F> panel(call.prepared, job.panel, plan.steps);
      const FinishLanes lanes(call);
      for (int64_t g = 0; g < job.groups; ++g) {
        const uint8_t* inputs = job.inputs + g * plan.group_bytes;
        for (int p = 0; p < kPoints; ++p) {
          multiply<kR, kSlot>(inputs + p * plan.point_bytes, panel.weights + p * plan.steps * kStepBytes, plan.steps,
                              panel.starts + p * kPanel, job.sums + p * kPanel, kPoints * kPanel);
        }
        for (int64_t m = 0; m < kR && job.first_tile + g * kR + m < plan.range.end; ++m) {
          const TilePlace place = place_of(plan, job.first_tile + g * kR + m);
          const int64_t row = g * kR + m;
          for (int v = 0; v < kVectors && job.panel * kPanel + v * kInts < call.shape->conv.out_channels; ++v) {
            transform_output<F>(
                call, plan, lanes, place,
                {job.sums + m * kPoints * kPanel + v * kInts, job.steps + row * WinogradPlan<F>::kPointsRound,
                 panel.factors + v * kInts, job.windows + row * F::kOut * F::kOut, job.panel * kPanel + v * kInts});
          }
        }
      }
    }
  };
};

// A row of the zero point, the inputs of a block with their steps and, for two-valued palettes, window sums, the 16-bit
// inputs of the tiles of a vector, the sums of a group. Large enough for every share of the tiles.
template <typename F>
struct WinogradScratch {
  uint8_t* zeros;
  uint8_t* inputs;
  float* steps;
  float* windows;
  S16s* wide;
  int32_t* sums;
  int64_t bytes = 0;

  WinogradScratch(const Conv2dShape& s, unsigned char* start) {
    constexpr int64_t kPoints = WinogradPlan<F>::kPoints;
    const WinogradPlan<F> plan(s, {});
    const int64_t row_bytes = plan.row_bytes();
    const int64_t largest_group = kPoints * (round_up(kRows * row_bytes, 64) + 64);
    // One more, where the last tile has no neighbour to share its vectors.
    const int64_t tiles = 1 + most(kRows, kTileBudgetBytes / (kPoints * row_bytes));
    const auto take = [&](int64_t size) {
      unsigned char* begin = start + bytes;
      bytes += round_up(size, 64);
      return begin;
    };
    zeros = take(most(plan.slots * plan.slot_channels, kBytes));
    inputs = take(most(kTileBudgetBytes, largest_group));
    steps = reinterpret_cast<float*>(take(tiles * WinogradPlan<F>::kPointsRound * static_cast<int64_t>(sizeof(float))));
    windows = reinterpret_cast<float*>(take(tiles * F::kOut * F::kOut * static_cast<int64_t>(sizeof(float))));
    wide = reinterpret_cast<S16s*>(take(kPoints * plan.slots * 2 * kBytes));
    sums = reinterpret_cast<int32_t*>(take(kRows * kPoints * kPanel * static_cast<int64_t>(sizeof(int32_t))));
  }
};

template <typename F>
int64_t winograd_scratch_bytes(const Conv2dU8Shape& s) {
  return WinogradScratch<F>(s.conv, nullptr).bytes;
}

// Transforms the tiles of a block. Rows behind the last tile are multiplied like the others, and not written: any tile
// does for them.
template <typename F, int kTiles>
void transform_block(const Conv2dU8Call& call, const WinogradPlan<F>& plan, const WinogradScratch<F>& scratch,
                     int64_t first, int64_t groups) {
  constexpr int kPoints = WinogradPlan<F>::kPoints;
  constexpr int kSlot = kBytes / kTiles;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t m = 0; m < plan.rows; m += kTiles) {
      const uint8_t* pixels[kTiles * kPoints];
      const int64_t row = g * plan.rows + m;
      for (int t = 0; t < kTiles; ++t) {
        const int64_t tile = least(first + row + t, plan.range.end - 1);
        find_pixels<F>(call, place_of(plan, tile), scratch.zeros, pixels + t * kPoints);
        if (call.finish.offset != nullptr) {
          sum_windows<F>(call, pixels + t * kPoints, scratch.windows + (row + t) * F::kOut * F::kOut);
        }
      }
      transform_tiles<F, kTiles>(call, plan, pixels, scratch.zeros, scratch.wide,
                                 scratch.inputs + g * plan.group_bytes + m * kSlot * kInputBytes,
                                 scratch.steps + row * WinogradPlan<F>::kPointsRound);
    }
  }
}

template <typename F>
int64_t winograd_prepared_bytes(const Conv2dU8Shape& s) {
  return ceil_div(s.conv.out_channels, kPanel) * PreparedPanel<F>::bytes(ceil_div(s.conv.in_channels, kDepth));
}

// The integers of one output channel, transformed, for one point after the other of all input channels.
template <typename F>
void transform_weights(const int8_t* taps, int64_t tap_bytes, int32_t (&u)[F::kIn][F::kIn]) {
  int32_t half[F::kIn][3];
  for (int j = 0; j < 3; ++j) {
    int32_t g[3], v[F::kIn];
    for (int i = 0; i < 3; ++i) g[i] = taps[(i * 3 + j) * tap_bytes];
    F::weights(g, v);
    for (int i = 0; i < F::kIn; ++i) half[i][j] = v[i];
  }
  for (int i = 0; i < F::kIn; ++i) F::weights(half[i], u[i]);
}

template <typename F>
void winograd_pack(const Conv2dU8Packing& packing) {
  constexpr int kPoints = WinogradPlan<F>::kPoints;
  const Conv2dShape& s = packing.shape->conv;
  const int64_t steps = ceil_div(s.in_channels, kDepth);
  const int64_t panel_bytes = PreparedPanel<F>::bytes(steps);
  const Range range = share_of(ceil_div(s.out_channels, kPanel), packing.share);
  for (int64_t panel = range.begin; panel < range.end; ++panel) {
    unsigned char* at = packing.prepared + panel * panel_bytes;
    std::memset(at, 0, static_cast<size_t>(panel_bytes));
    auto* factors = reinterpret_cast<float*>(at);
    auto* starts = reinterpret_cast<int32_t*>(at) + kPoints * kPanel;
    auto* weights = reinterpret_cast<int8_t*>(at + kPoints * kPanel * 8);
    for (int64_t j = 0; j < least(kPanel, s.out_channels - panel * kPanel); ++j) {
      const int64_t o = panel * kPanel + j;
      constexpr int64_t kChunk = 64;
      int8_t taps[9][kChunk];
      int32_t u[F::kIn][F::kIn];
      int32_t largest[kPoints] = {};
      for (int pass = 0; pass < 2; ++pass) {
        for (int64_t i0 = 0; i0 < s.in_channels; i0 += kChunk) {
          const int64_t count = least(kChunk, s.in_channels - i0);
          for (int64_t tap = 0; tap < 9; ++tap) {
            decode_int8(s, *packing.weights, *packing.palette, o, tap * s.in_channels + i0, count, taps[tap]);
          }
          for (int64_t c = 0; c < count; ++c) {
            transform_weights<F>(taps[0] + c, kChunk, u);
            for (int p = 0; p < kPoints; ++p) {
              const int32_t value = u[p / F::kIn][p % F::kIn];
              if (pass == 0) {
                const int32_t size = value < 0 ? -value : value;
                largest[p] = size > largest[p] ? size : largest[p];
                continue;
              }
              const int32_t rounded = round_to_int8(value, rounding_factor(largest[p]));
              const int64_t k = i0 + c;
              weights[(p * steps + k / kDepth) * kStepBytes + place_in_step(k % kDepth, j)] =
                  static_cast<int8_t>(rounded);
              starts[p * kPanel + j] -= rounded * kRaised;
            }
          }
        }
      }
      const float multiplier = channel_multiplier(*packing.shape, *packing.weights, *packing.palette, o);
      for (int p = 0; p < kPoints; ++p) {
        const float divisor = F::kWeights[p / F::kIn] * F::kWeights[p % F::kIn];
        const float step = kRoundOne / static_cast<float>(rounding_factor(largest[p]));
        factors[p * kPanel + j] = (step / divisor) * multiplier;
      }
    }
  }
}

template <typename F>
void winograd_run(const Conv2dU8Call& call) {
  const WinogradPlan<F> plan(call.shape->conv, call.share);
  const WinogradScratch<F> scratch(call.shape->conv, call.scratch);
  std::memset(scratch.zeros, call.shape->in.zero, static_cast<size_t>(most(plan.slots * plan.slot_channels, kBytes)));
  const int64_t block = plan.block_tiles();
  for (int64_t first = plan.range.begin; first < plan.range.end; first += block) {
    const int64_t groups = least(plan.groups_per_block, ceil_div(plan.range.end - first, plan.rows));
    if (plan.slot_channels == kBytes) {
      transform_block<F, 1>(call, plan, scratch, first, groups);
    } else if constexpr (kHalves) {
      transform_block<F, 2>(call, plan, scratch, first, groups);
    }
    for (int64_t p = 0; p < plan.panels; ++p) {
      const WinogradJob<F> job{&plan, scratch.inputs, scratch.steps, scratch.windows, first, groups, p, scratch.sums};
      if (plan.slot_channels == kBytes) {
        WithRows<Products<F, kBytes>::template Run, kRows>::run(plan.rows, call, job);
      } else if constexpr (kHalves) {
        WithRows<Products<F, kBytes / 2>::template Run, kRows>::run(plan.rows, call, job);
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
