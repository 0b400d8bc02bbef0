// 3x3 convolution of bytes with stride 1 as F(mxm,3x3) in integers: see winograd/winograd.h for how tiles, groups and
// blocks go, conv2d_u8_portable.cc for what is computed.
//
// Vectors of bytes hold the channels of one tile or, where there are no more channels than half a vector has bytes,
// those of two neighbouring tiles: kTiles.
#pragma once

#include "conv_u8/finish.h"
#include "conv_u8/multiply.h"
#include "conv_u8/rounding.h"
#include "conv_u8/weights.h"
#include "conv_u8/window_sums.h"
#include "winograd/integer_transforms.h"

namespace voxpress {
namespace {

constexpr bool kHalves = kBytes > 16;            // vectors are worth sharing between two tiles
constexpr int64_t kTileBudgetBytes = 280 << 10;  // of transformed inputs in a block
constexpr int kSumsBudgetBytes = 28 << 10;       // of the sums of a group, which are read again at once

template <typename F>
struct WinogradPlan {
  static constexpr int kPoints = F::kIn * F::kIn;
  static constexpr int kPointsRound = (kPoints + 15) / 16 * 16;
  static constexpr int kFitting = kSumsBudgetBytes / (kPoints * kPanel * static_cast<int>(sizeof(int32_t)));
  static constexpr int kMostRows = kFitting < kRows ? kFitting / 2 * 2 : kRows;
  static constexpr int kPointSums = kMostRows * kPanel;  // sums of a group: [point][kMostRows][kPanel]

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
    rows = rows_per_group(tiles, kMostRows);
    point_bytes = round_up(slots * rows * slot_channels * kInputBytes, 64) + 64;
    group_bytes = kPoints * point_bytes;
    groups_per_block = most(1, least(kTileBudgetBytes / group_bytes, ceil_div(tiles, rows)));
  }

  int64_t block_tiles() const { return groups_per_block * rows; }
};

// Of a panel of prepared weights: factors and starts, each [point][kPanel], then [point][steps][kPanel][kDepth] with a
// line of zeros behind each point: all points are written in turns, and at a power of two apart would share few places
// of the cache.
template <typename F>
struct PreparedPanel {
  static constexpr int64_t kArray = WinogradPlan<F>::kPoints * kPanel;
  const float* factors;
  const int32_t* starts;
  const int8_t* weights;

  static int64_t point_bytes(int64_t steps) { return steps * kStepBytes + kLineBytes; }
  static int64_t bytes(int64_t steps) { return kArray * 8 + WinogradPlan<F>::kPoints * point_bytes(steps); }
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

template <typename F>
VOXPRESS_INLINE void advance(const WinogradPlan<F>& plan, TilePlace* place) {
  place->mel += F::kOut;
  if (place->mel < plan.out_mel) return;
  place->mel = 0;
  place->frame += F::kOut;
  if (place->frame < plan.out_frames) return;
  place->frame = 0;
  ++place->n;
}

// The first position of the line of tiles that a tile is in.
template <typename F>
int64_t first_position(const WinogradPlan<F>& plan, int64_t tile) {
  const TilePlace place = place_of(plan, tile);
  return (place.n * plan.out_frames + place.frame) * plan.out_mel;
}

// From the first point of a tile's inputs to the others, in bytes.
template <typename F>
struct PixelOffsets {
  int64_t of[F::kIn * F::kIn];

  explicit PixelOffsets(const Conv2dShape& s) {
    for (int p = 0; p < F::kIn * F::kIn; ++p) of[p] = (p / F::kIn * s.in_mel + p % F::kIn) * s.in_channels;
  }
};

// pixels[p] points to the input channels at point p of the tile, or to `zeros`.
template <typename F>
void find_pixels(const Conv2dU8Call& call, const PixelOffsets<F>& offsets, const TilePlace& place, const uint8_t* zeros,
                 const uint8_t** pixels) {
  const Conv2dShape& s = call.shape->conv;
  const uint8_t* utterance =
      static_cast<const uint8_t*>(call.tensors->input) + place.n * s.in_frames * s.in_mel * s.in_channels;
  const int64_t first_frame = place.frame - s.pad_frames;
  const int64_t first_mel = place.mel - s.pad_mel;
  if (first_frame >= 0 && first_mel >= 0 && first_frame + F::kIn <= s.in_frames && first_mel + F::kIn <= s.in_mel) {
    const uint8_t* first = utterance + (first_frame * s.in_mel + first_mel) * s.in_channels;
    for (int p = 0; p < F::kIn * F::kIn; ++p) pixels[p] = first + offsets.of[p];
    return;
  }
  for (int i = 0; i < F::kIn; ++i) {
    const int64_t frame = first_frame + i;
    const bool frame_inside = frame >= 0 && frame < s.in_frames;
    for (int j = 0; j < F::kIn; ++j) {
      const int64_t mel = first_mel + j;
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
  } else if constexpr (kWhole) {
    return load_halves(first[0] + channel, first[tile_pixels] + channel);
  } else {
    alignas(kBytes) uint8_t bytes[kBytes];
    for (int tile = 0; tile < kTiles; ++tile) {
      std::memcpy(bytes + tile * kSlot, first[tile * tile_pixels] + channel, static_cast<size_t>(count));
      std::memcpy(bytes + tile * kSlot + count, zeros, static_cast<size_t>(kSlot - count));
    }
    return load<U8s>(bytes);
  }
}

// F::input of bytes, of each half of a vector; where there is such an instruction, from products of pairs.
#if defined(VOXPRESS_PAIR_PRODUCTS)
VOXPRESS_INLINE void transform_pairs(const U8s (&pairs)[3], S16s (&v)[IntegerF2::kIn]) {
  v[0] = pair_products(pairs[0], 1, -1);  // of 0 and 2
  v[1] = pair_products(pairs[1], 1, 1);   // of 2 and 1
  v[2] = pair_products(pairs[1], 1, -1);
  v[3] = pair_products(pairs[2], 1, -1);  // of 3 and 1
}

VOXPRESS_INLINE void transform_pairs(const U8s (&pairs)[4], S16s (&v)[IntegerF4::kIn]) {
  const S16s even = pair_products(pairs[1], 1, -4);  // of 4 and 2
  const S16s odd = pair_products(pairs[2], 1, -4);   // of 3 and 1
  const S16s even2 = pair_products(pairs[1], 1, -1);
  const S16s odd2 = pair_products(pairs[2], 2, -2);
  v[0] = pair_products(pairs[0], 4, -4) + even2;  // of 0 and 2
  v[1] = even + odd;
  v[2] = even - odd;
  v[3] = even2 + odd2;
  v[4] = even2 - odd2;
  v[5] = pair_products(pairs[3], 1, -1) - pair_products(pairs[2], 4, -4);  // of 5 and 3
}

template <typename F>
VOXPRESS_INLINE void first_transform(const U8s (&d)[F::kIn], S16s (&low)[F::kIn], S16s (&high)[F::kIn]) {
  constexpr int kPairs = F::kIn == 6 ? 4 : 3;
  constexpr int kFirst[2][4] = {{0, 2, 3, 0}, {0, 4, 3, 5}};
  constexpr int kSecond[2][4] = {{2, 1, 1, 0}, {2, 2, 1, 3}};
  U8s low_pairs[kPairs], high_pairs[kPairs];
  VOXPRESS_UNROLL
  for (int j = 0; j < kPairs; ++j) {
    const U8s a = d[kFirst[F::kIn == 6][j]];
    const U8s b = d[kSecond[F::kIn == 6][j]];
    low_pairs[j] = interleave_low(a, b);
    high_pairs[j] = interleave_high(a, b);
  }
  transform_pairs(low_pairs, low);
  transform_pairs(high_pairs, high);
}
#else
template <typename F>
VOXPRESS_INLINE void first_transform(const U8s (&d)[F::kIn], S16s (&low)[F::kIn], S16s (&high)[F::kIn]) {
  S16s wide_low[F::kIn], wide_high[F::kIn];
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kIn; ++i) {
    wide_low[i] = widen_low(d[i]);
    wide_high[i] = widen_high(d[i]);
  }
  F::input(wide_low, low);
  F::input(wide_high, high);
}
#endif

// Transforms one vector of input channels: wide[point][0..2) 16-bit vectors `step` apart, the largest magnitudes of
// each point into `largest`.
template <typename F, int kTiles, bool kWhole, bool kFirst>
VOXPRESS_INLINE void transform_vector(const uint8_t* const* pixels, int64_t channel, int64_t count,
                                      const uint8_t* zeros, int16_t correction, S16s* wide, int64_t step,
                                      U16s* largest) {
  constexpr int n = F::kIn;
  S16s half[2][n][n];
  for (int j = 0; j < n; ++j) {
    U8s d[n];
    S16s low[n], high[n];
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) {
      d[i] = load_pixel<kTiles, kWhole>(pixels + i * n + j, n * n, channel, count, zeros);
    }
    first_transform<F>(d, low, high);
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) {
      half[0][i][j] = low[i];
      half[1][i][j] = high[i];
    }
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

template <typename F>
struct PointFactors {
  alignas(64) float of[WinogradPlan<F>::kPointsRound] = {};
  constexpr PointFactors() {
    for (int p = 0; p < WinogradPlan<F>::kPoints; ++p) of[p] = point_factor<F>(p);
  }
};
template <typename F>
constexpr PointFactors<F> kPointFactors;

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
  VOXPRESS_UNROLL
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
    int32_t found[16];
    largest_of_eight(largest + p, found);
    for (int j = 0; j < 8; ++j) {
      const int32_t both = found[j] > found[8 + j] ? found[j] : found[8 + j];
      sizes[0][p + j] = kTiles == 1 ? both : found[j];
      sizes[1][p + j] = found[8 + j];
    }
  }
  const bool whole = call.shape->conv.bits == 1;
  for (int tile = 0; tile < kTiles; ++tile) {
    for (int p = 0; p < kPointsRound; p += kInts) {
      float* here = steps + tile * kPointsRound + p;
      round_factors(sizes[tile] + p, pairs[tile] + p, here);
      if (whole) store(here, load<F32s>(here) * load<F32s>(kPointFactors<F>.of + p));
    }
  }
  const auto factor_of = [&](int p) {
    const S32s first = pairs[0][p] - S32s{};
    if constexpr (kTiles == 1) {
      return (S16s)first;
    } else {
      return (S16s)halves(first, pairs[1][p] - S32s{});
    }
  };
  const auto round_to = [&](uint8_t* row, int p, int64_t slot, S16s factor) {
    const S16s* at = wide + p * step + 2 * slot;
    store_transformed(row, round_product(at[0], factor), round_product(at[1], factor));
  };
  if (plan.slots == 1) {
    for (int p = 0; p < kPoints; ++p) round_to(target + p * plan.point_bytes, p, 0, factor_of(p));
    return;
  }
  for (int p = 0; p < kPoints; ++p) {
    const S16s factor = factor_of(p);
    uint8_t* row = target + p * plan.point_bytes;
    for (int64_t slot = 0; slot < plan.slots; ++slot, row += plan.rows * kSlot * kInputBytes) {
      round_to(row, p, slot, factor);
    }
  }
}

// What transformed weights are. Those of +-1 are whole and no larger than 127, so that they are not rounded and what a
// point is worth is the same for all channels; what windows add is then put into the sums of some points.
enum class Transformed { kRounded, kWhole, kWholeWithWindows };

// A line of a tile's outputs, and F::spread of it.
template <typename F>
struct OutputLine;
template <>
struct OutputLine<IntegerF2> {
  typedef float Floats __attribute__((vector_size(8)));
  static VOXPRESS_INLINE Floats spread(Floats y) { return y; }
};
template <>
struct OutputLine<IntegerF4> {
  typedef float Floats __attribute__((vector_size(16)));
  static VOXPRESS_INLINE Floats spread(Floats y) {
    const Floats second = __builtin_shufflevector(y, y, 2, 1, 1, 1) * Floats{-1.0f, 1.0f, -1.0f, -1.0f};
    return (__builtin_shufflevector(y, y, 0, 2, 2, 3) + second) * Floats{1.0f, 0.5f, 0.5f, 1.0f};
  }
};

// The values at F::kSpread, [frame][mel], of which a tile's window sums are made, times `ratio`.
template <typename F>
VOXPRESS_INLINE void spread_windows(const float* windows, int64_t line, float ratio, float* spread) {
  typename OutputLine<F>::Floats y[F::kOut], m[F::kOut];
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kOut; ++i) std::memcpy(&y[i], windows + i * line, sizeof(y[i]));
  F::spread(y, m);
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kOut; ++i) {
    const typename OutputLine<F>::Floats values = OutputLine<F>::spread(m[i]) * ratio;
    std::memcpy(spread + i * F::kOut, &values, sizeof(values));
  }
}

// The same for any tile; what lies outside of the output counts as 0.
template <typename F>
void spread_tile(const WinogradPlan<F>& plan, const TilePlace& place, const float* windows, float ratio,
                 float* spread) {
  const int64_t position = (place.n * plan.out_frames + place.frame) * plan.out_mel + place.mel;
  const int64_t frames = least(F::kOut, plan.out_frames - place.frame);
  const int64_t mel = least(F::kOut, plan.out_mel - place.mel);
  if (frames == F::kOut && mel == F::kOut) {
    spread_windows<F>(windows + position, plan.out_mel, ratio, spread);
    return;
  }
  float inside[F::kOut * F::kOut] = {};
  for (int64_t i = 0; i < frames; ++i) {
    for (int64_t j = 0; j < mel; ++j) inside[i * F::kOut + j] = windows[position + i * plan.out_mel + j];
  }
  spread_windows<F>(inside, F::kOut, ratio, spread);
}

template <typename F>
constexpr int place_in_spread(int index) {
  for (int k = 0; k < F::kOut; ++k) {
    if (F::kSpread[k] == index) return k;
  }
  return -1;
}

// kInts output channels of a tile.
struct TileSums {
  const int32_t* sums;   // [point][kMostRows][kPanel]
  const float* steps;    // [point]
  const float* factors;  // [point][kPanel], of rounded weights
  const float* spread;   // with windows
};

// half[i][j]: the sums of column j, as floats, transformed; of rounded weights with `start` in what all outputs are.
template <typename F, Transformed kWeights>
VOXPRESS_INLINE void transform_columns(const TileSums& tile, F32s start, F32s (&half)[F::kOut][F::kIn]) {
  constexpr int n = F::kIn;
  VOXPRESS_UNROLL
  for (int j = 0; j < n; ++j) {
    F32s a[n], y[F::kOut];
    [[maybe_unused]] F32s factors[n];
    VOXPRESS_UNROLL
    for (int i = 0; i < n; ++i) {
      const int p = i * n + j;
      const F32s sum = to_floats(load<S32s>(tile.sums + p * WinogradPlan<F>::kPointSums));
      const F32s step = broadcast(tile.steps[p]);
      const int row = place_in_spread<F>(i);
      const int column = place_in_spread<F>(j);
      if (kWeights == Transformed::kWholeWithWindows && row >= 0 && column >= 0) {
        a[i] = fused(sum, step, broadcast(tile.spread[row * F::kOut + column]));
      } else {
        a[i] = sum * step;
      }
      if constexpr (kWeights == Transformed::kRounded) factors[i] = load<F32s>(tile.factors + p * kPanel);
    }
    if constexpr (kWeights == Transformed::kRounded) {
      F::output_of_products(a, factors, j == 1 ? start : F32s{}, y);
    } else {
      F::output(a, y);
    }
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kOut; ++i) half[i][j] = y[i];
  }
}

// A line of outputs, without a residual.
template <typename F, Transformed kWeights>
VOXPRESS_INLINE void transform_line(const F32s (&half)[F::kIn], F32s multiplier, F32s start, F32s (&y)[F::kOut]) {
  F::output(half, y);
  if constexpr (kWeights != Transformed::kRounded) {
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kOut; ++j) y[j] = fused(y[j], multiplier, start);
  }
}

// Transforms sums and writes what of the tile lies in the output, from channel `channel` on.
template <typename F, Transformed kWeights>
void transform_output(const Conv2dU8Call& call, const WinogradPlan<F>& plan, const FinishLanes& lanes,
                      const TilePlace& place, const TileSums& tile, int64_t channel) {
  const int64_t channels = call.shape->conv.out_channels;
  const F32s multiplier = load<F32s>(call.finish.multiplier + channel);
  const F32s start = start_of(lanes, call.finish.bias + channel);
  F32s half[F::kOut][F::kIn];
  transform_columns<F, kWeights>(tile, start, half);
  for (int i = 0; i < F::kOut && place.frame + i < plan.out_frames; ++i) {
    F32s y[F::kOut];
    transform_line<F, kWeights>(half[i], multiplier, start, y);
    const int64_t line = (place.n * plan.out_frames + place.frame + i) * plan.out_mel + place.mel;
    finish<F::kOut>(call, lanes, {line * channels + channel, channel, channels - channel, plan.out_mel - place.mel},
                    nullptr, y);
  }
}

// The same for a tile that lies in the output as a whole, all in bytes: nearly all of them.
struct PlainOutput {
  const float* multiplier;
  const float* bias;
  const uint8_t* residual;
  uint8_t* output;
  int64_t line;         // from one output line to the next, in outputs
  int64_t pixel_bytes;  // from one output to the next
};

template <typename F, Transformed kWeights, bool kResidual>
__attribute__((noinline)) void transform_plain_output(const FinishLanes& lanes, const PlainOutput& at,
                                                      const TileSums& tile) {
  F32s half[F::kOut][F::kIn];
  const F32s multiplier = load<F32s>(at.multiplier);
  const F32s start = start_of(lanes, at.bias);
  transform_columns<F, kWeights>(tile, start, half);
  const uint8_t* residual = at.residual;
  uint8_t* output = at.output;
  const int64_t line_bytes = at.line * at.pixel_bytes;
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kOut; ++i, residual += line_bytes, output += line_bytes) {
    F32s y[F::kOut];
    transform_line<F, kWeights>(half[i], multiplier, start, y);
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kOut; ++j) {
      if constexpr (kResidual) y[j] = add_residual(lanes, residual + j * at.pixel_bytes, y[j]);
    }
    store_rounded(y, lanes.low, output, at.pixel_bytes);
  }
}

// The products of one group of tiles and one panel, point by point; F is there for the number of points.
template <typename F, int kSlot>
struct Products {
  template <int kR>
  struct Run {
    __attribute__((noinline)) static void run(const WinogradPlan<F>& plan, const PreparedPanel<F>& panel,
                                              const uint8_t* inputs, int32_t* sums) {
      constexpr int kPoints = WinogradPlan<F>::kPoints;
      for (int p = 0; p < kPoints; ++p) {
        multiply<kR, kSlot>(inputs + p * plan.point_bytes,
                            panel.weights + p * PreparedPanel<F>::point_bytes(plan.steps), plan.steps,
                            panel.starts + p * kPanel, sums + p * WinogradPlan<F>::kPointSums);
      }
    }
  };
};

// A group of tiles whose products have been summed.
template <typename F>
struct SummedGroup {
  int64_t first_tile;
  int64_t tiles;
  int64_t first_channel;
  const int32_t* sums;
  const float* steps;
  const float* spread;
};

template <typename F, Transformed kWeights>
void write_group(const Conv2dU8Call& call, const WinogradPlan<F>& plan, const PreparedPanel<F>& panel,
                 const SummedGroup<F>& group) {
  const FinishLanes lanes(call);
  const int64_t channels = call.shape->conv.out_channels;
  const auto* residual = static_cast<const uint8_t*>(call.tensors->residual);
  auto* output = static_cast<uint8_t*>(call.tensors->output);
  const auto write_plain =
      residual != nullptr ? transform_plain_output<F, kWeights, true> : transform_plain_output<F, kWeights, false>;
  const bool plain = is_plain(call);
  TilePlace place = place_of(plan, group.first_tile);
  for (int64_t m = 0; m < group.tiles; ++m, advance(plan, &place)) {
    const bool inside = place.frame + F::kOut <= plan.out_frames && place.mel + F::kOut <= plan.out_mel;
    for (int v = 0; v < kVectors && group.first_channel + v * kInts < channels; ++v) {
      const int64_t channel = group.first_channel + v * kInts;
      const TileSums tile{group.sums + m * kPanel + v * kInts, group.steps + m * WinogradPlan<F>::kPointsRound,
                          panel.factors + v * kInts, group.spread + m * F::kOut * F::kOut};
      if (!plain || !inside || channel + kInts > channels) {
        transform_output<F, kWeights>(call, plan, lanes, place, tile, channel);
        continue;
      }
      const int64_t position = (place.n * plan.out_frames + place.frame) * plan.out_mel + place.mel;
      const int64_t at = position * channels + channel;
      PlainOutput to{
          call.finish.multiplier + channel, call.finish.bias + channel, nullptr, output + at, plan.out_mel, channels};
      if (residual != nullptr) to.residual = residual + at;
      write_plain(lanes, to, tile);
    }
  }
}

template <typename F>
auto group_writer(const Conv2dU8Call& call) {
  if (call.shape->conv.bits != 1) return write_group<F, Transformed::kRounded>;
  return call.finish.offset != nullptr ? write_group<F, Transformed::kWholeWithWindows>
                                       : write_group<F, Transformed::kWhole>;
}

// A row of the zero point, the inputs of a block with their steps, the 16-bit inputs of the tiles of a vector, the sums
// of a group and, behind all that, what windows want. Large enough for every share of the tiles.
template <typename F>
struct WinogradScratch {
  uint8_t* zeros;
  uint8_t* inputs;
  float* steps;
  S16s* wide;
  int32_t* sums;
  float* spread;  // [tile of a block][kOut * kOut]
  unsigned char* windows;
  int64_t bytes = 0;

  WinogradScratch(const Conv2dShape& s, unsigned char* start) {
    constexpr int64_t kPoints = WinogradPlan<F>::kPoints;
    const WinogradPlan<F> plan(s, {});
    const int64_t row_bytes = plan.slots * plan.slot_channels * kInputBytes;
    const int64_t largest_group = kPoints * (round_up(WinogradPlan<F>::kMostRows * row_bytes, 64) + 64);
    // One more, where the last tile has no neighbour to share its vectors.
    const int64_t tiles = 1 + most(WinogradPlan<F>::kMostRows, kTileBudgetBytes / (kPoints * row_bytes));
    const auto take = [&](int64_t size) {
      unsigned char* begin = start + bytes;
      bytes += round_up(size, 64);
      return begin;
    };
    zeros = take(most(row_bytes, kBytes));
    inputs = take(most(kTileBudgetBytes, largest_group));
    steps = reinterpret_cast<float*>(take(tiles * WinogradPlan<F>::kPointsRound * static_cast<int64_t>(sizeof(float))));
    wide = reinterpret_cast<S16s*>(take(kPoints * plan.slots * 2 * kBytes));
    sums = reinterpret_cast<int32_t*>(
        take(WinogradPlan<F>::kMostRows * kPoints * kPanel * static_cast<int64_t>(sizeof(int32_t))));
    spread = reinterpret_cast<float*>(
        take(s.bits == 1 ? tiles * F::kOut * F::kOut * static_cast<int64_t>(sizeof(float)) : 0));
    windows = take(WindowSums::scratch_bytes(s));
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
                     int64_t first, int64_t groups, WindowSums* windows) {
  constexpr int kPoints = WinogradPlan<F>::kPoints;
  constexpr int kSlot = kBytes / kTiles;
  const PixelOffsets<F> offsets(call.shape->conv);
  TilePlace place = place_of(plan, first);
  for (int64_t g = 0; g < groups; ++g) {
    if (call.finish.offset != nullptr) {  // right before, so that inputs come into the L1 cache once
      const int64_t last = least(first + (g + 1) * plan.rows, plan.range.end) - 1;
      windows->reach(first_position(plan, last) + F::kOut * plan.out_mel);
    }
    for (int64_t m = 0; m < plan.rows; m += kTiles) {
      const uint8_t* pixels[kTiles * kPoints];
      const int64_t row = g * plan.rows + m;
      for (int t = 0; t < kTiles; ++t) {
        find_pixels<F>(call, offsets, place, scratch.zeros, pixels + t * kPoints);
        if (call.finish.offset != nullptr) {
          spread_tile<F>(plan, place, windows->windows(), call.finish.window_ratio,
                         scratch.spread + (row + t) * F::kOut * F::kOut);
        }
        if (first + row + t + 1 < plan.range.end) advance(plan, &place);
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

template <typename F>
void winograd_run(const Conv2dU8Call& call) {
  const WinogradPlan<F> plan(call.shape->conv, call.share);
  const WinogradScratch<F> scratch(call.shape->conv, call.scratch);
  std::memset(scratch.zeros, call.shape->in.zero, static_cast<size_t>(most(plan.slots * plan.slot_channels, kBytes)));
  const int64_t block = plan.block_tiles();
  WindowSums windows(call.shape->conv, scratch.windows);
  if (call.finish.offset != nullptr) windows.begin(call, 0, first_position(plan, plan.range.begin));
  const auto write = group_writer<F>(call);
  for (int64_t first = plan.range.begin; first < plan.range.end; first += block) {
    const int64_t groups = least(plan.groups_per_block, ceil_div(plan.range.end - first, plan.rows));
    if (plan.slot_channels == kBytes) {
      transform_block<F, 1>(call, plan, scratch, first, groups, &windows);
    } else if constexpr (kHalves) {
      transform_block<F, 2>(call, plan, scratch, first, groups, &windows);
    }
    for (int64_t p = 0; p < plan.panels; ++p) {
      const PreparedPanel<F> panel(call.prepared, p, plan.steps);
      for (int64_t g = 0; g < groups; ++g) {
        const uint8_t* inputs = scratch.inputs + g * plan.group_bytes;
        if (plan.slot_channels == kBytes) {
          WithSteppedRows<Products<F, kBytes>::template Run, WinogradPlan<F>::kMostRows>::run(plan.rows, plan, panel,
                                                                                              inputs, scratch.sums);
        } else if constexpr (kHalves) {
          WithSteppedRows<Products<F, kBytes / 2>::template Run, WinogradPlan<F>::kMostRows>::run(
              plan.rows, plan, panel, inputs, scratch.sums);
        }
        const int64_t tile = g * plan.rows;
        write(call, plan, panel,
              {first + tile, least(plan.rows, plan.range.end - first - tile), p * kPanel, scratch.sums,
               scratch.steps + tile * WinogradPlan<F>::kPointsRound, scratch.spread + tile * F::kOut * F::kOut});
      }
    }
  }
}

}  // namespace
}  // namespace voxpress
