// The weights of the integer Winograd kernels on their way to their panels. An output channel is treated like a tile of
// inputs: transformed with 16 bits, then rounded with a step for each point.
#pragma once

#include "conv_u8/decode.h"
#include "conv_u8/winograd_u8.h"

namespace voxpress {
namespace {

constexpr int64_t kMostSlots = 16;  // of input channels that are transformed at a time: 1024 for the longest vectors

// u[point] = F::weights of both directions of nine taps.
template <typename F>
VOXPRESS_INLINE void transform_taps(const S16s (&taps)[9], S16s* u, int64_t step) {
  S16s half[F::kIn][3];
  VOXPRESS_UNROLL
  for (int j = 0; j < 3; ++j) {
    const S16s g[3] = {taps[j], taps[3 + j], taps[6 + j]};
    S16s v[F::kIn];
    F::weights(g, v);
    VOXPRESS_UNROLL
    for (int i = 0; i < F::kIn; ++i) half[i][j] = v[i];
  }
  VOXPRESS_UNROLL
  for (int i = 0; i < F::kIn; ++i) {
    S16s v[F::kIn];
    F::weights(half[i], v);
    VOXPRESS_UNROLL
    for (int j = 0; j < F::kIn; ++j) u[(i * F::kIn + j) * step] = v[j];
  }
}

// One output channel.
template <typename F>
struct Filter {
  static constexpr int kPoints = WinogradPlan<F>::kPoints;
  static constexpr int kPointsRound = WinogradPlan<F>::kPointsRound;
  U16s largest[kPointsRound];
  alignas(kBytes) int32_t pairs[kPointsRound];
  alignas(kBytes) float steps[kPointsRound];

  // Transforms kBytes input channels from i0 on of output channel o into wide[point][2].
  void transform(const Conv2dU8Packing& packing, int64_t o, int64_t i0, S16s* wide) {
    const Conv2dShape& s = packing.shape->conv;
    S16s low[9], high[9];
    for (int64_t tap = 0; tap < 9; ++tap) {
      alignas(kBytes) int8_t values[kBytes] = {};
      decode(s, *packing.weights, *packing.palette, o, tap * s.in_channels + i0, least(kBytes, s.in_channels - i0),
             values);
      const U8s bytes = load<U8s>(values);
      low[tap] = (S16s)interleave_low(bytes, bytes) >> 8;
      high[tap] = (S16s)interleave_high(bytes, bytes) >> 8;
    }
    transform_taps<F>(low, wide, 2);
    transform_taps<F>(high, wide + 1, 2);
  }

  // Before the first slot is measured.
  VOXPRESS_INLINE void begin() {
    VOXPRESS_UNROLL
    for (int p = 0; p < kPointsRound; ++p) largest[p] = U16s{};
  }

  void measure(const S16s* wide) {
    for (int p = 0; p < kPoints; ++p) {
      largest[p] = larger(largest[p], larger(magnitude(wide[2 * p]), magnitude(wide[2 * p + 1])));
    }
  }

  void find_factors() {
    for (int p = 0; p < kPointsRound; p += 8) {
      alignas(kBytes) int32_t found[16];
      largest_of_eight(largest + p, found);
      for (int j = 0; j < 8; ++j) pairs[p + j] = found[j] > found[8 + j] ? found[j] : found[8 + j];
    }
    for (int p = 0; p < kPointsRound; p += kInts) round_factors(pairs + p, pairs + p, steps + p);
  }

  // Writes kBytes input channels from i0 on as column j of the panel; where all of them exist, as
  // row j of what transpose_block sees to.
  void write(const S16s* wide, int64_t depth, int64_t i0, int64_t j, int64_t steps_of_depth, int8_t* weights) const {
    const int64_t count = ceil_div(least(kBytes, depth - i0), kDepth);
    for (int p = 0; p < kPoints; ++p) {
      const auto factor = (S16s)(pairs[p] - S32s{});
      const U8s rounded = narrow(round_product(wide[2 * p], factor), round_product(wide[2 * p + 1], factor));
      int8_t* target = weights + p * PreparedPanel<F>::point_bytes(steps_of_depth) + i0 / kDepth * kStepBytes;
      if (count == kInts) {
        store(target + j * kBytes, rounded);
        continue;
      }
      int32_t words[kInts];
      store(words, rounded);
      for (int64_t k = 0; k < count; ++k) {
        std::memcpy(target + k * kStepBytes + j * kDepth, words + k, sizeof(words[k]));
      }
    }
  }
};

// Halves of a and b, lane by lane in turns.
VOXPRESS_INLINE S32s interleave_first(S32s a, S32s b) {
#if VOXPRESS_BYTES == 64
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif VOXPRESS_BYTES == 32
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
VOXPRESS_INLINE S32s interleave_second(S32s a, S32s b) {
#if VOXPRESS_BYTES == 64
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif VOXPRESS_BYTES == 32
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// [kPanel][kInts] words -> [kInts][kPanel], in place. Rows of a square are interleaved with those half its size away,
// as often as its size can be halved.
inline void transpose_block(int8_t* block) {
  S32s rows[kPanel];
  VOXPRESS_UNROLL
  for (int j = 0; j < kPanel; ++j) rows[j] = load<S32s>(block + j * kBytes);
  for (int v = 0; v < kVectors; ++v) {
    S32s from[kInts], to[kInts];
    VOXPRESS_UNROLL
    for (int j = 0; j < kInts; ++j) from[j] = rows[v * kInts + j];
    VOXPRESS_UNROLL
    for (int size = kInts; size > 1; size /= 2) {
      VOXPRESS_UNROLL
      for (int j = 0; j < kInts / 2; ++j) {
        to[2 * j] = interleave_first(from[j], from[j + kInts / 2]);
        to[2 * j + 1] = interleave_second(from[j], from[j + kInts / 2]);
      }
      VOXPRESS_UNROLL
      for (int j = 0; j < kInts; ++j) from[j] = to[j];
    }
    VOXPRESS_UNROLL
    for (int j = 0; j < kInts; ++j) store(block + j * kStepBytes + v * kBytes, from[j]);
  }
}

// The codes of an output channel; they may come from main memory.
inline void prefetch_row(const Conv2dU8Packing& packing, int64_t o) {
  const Conv2dShape& s = packing.shape->conv;
  const int64_t row_bits = 9 * s.in_channels * s.bits;
  const auto* codes = static_cast<const char*>(packing.weights->codes);
  const int64_t end = least((o + 1) * row_bits / 8, static_cast<int64_t>(packing.weights->codes_bytes));
  for (int64_t byte = o * row_bits / 8; byte < end; byte += kLineBytes) __builtin_prefetch(codes + byte);
}

template <typename F>
void pack_panel(const Conv2dU8Packing& packing, int64_t panel, unsigned char* at) {
  constexpr int kPoints = WinogradPlan<F>::kPoints;
  const Conv2dShape& s = packing.shape->conv;
  const int64_t steps = ceil_div(s.in_channels, kDepth);
  auto* factors = reinterpret_cast<float*>(at);
  auto* starts = reinterpret_cast<int32_t*>(at) + kPoints * kPanel;
  auto* weights = reinterpret_cast<int8_t*>(at + kPoints * kPanel * 8);
  const int64_t channels = least(kPanel, s.out_channels - panel * kPanel);
  if (channels < kPanel) std::memset(at, 0, static_cast<size_t>(PreparedPanel<F>::bytes(steps)));
  // Few input channels stay transformed until their factors are known; many are transformed twice. Weights of +-1 want
  // no factors.
  const int64_t slots = ceil_div(s.in_channels, kBytes);
  const bool kept = slots <= kMostSlots;
  const bool whole = s.bits == 1;
  S16s wide[kMostSlots][2 * kPoints];
  for (int64_t j = 0; j < channels; ++j) {
    const int64_t o = panel * kPanel + j;
    prefetch_row(packing, o + 1);
    Filter<F> filter;
    filter.begin();
    for (int64_t slot = 0; slot < slots; ++slot) {
      S16s* here = wide[kept ? slot : 0];
      filter.transform(packing, o, slot * kBytes, here);
      if (!whole) filter.measure(here);
    }
    filter.find_factors();
    for (int64_t slot = 0; slot < slots; ++slot) {
      S16s* here = wide[kept ? slot : 0];
      if (!kept) filter.transform(packing, o, slot * kBytes, here);
      filter.write(here, s.in_channels, slot * kBytes, j, steps, weights);
    }
    const float multiplier = channel_multiplier(*packing.shape, *packing.weights, *packing.palette, o);
    for (int p = 0; p < kPoints; ++p) {
      const float divisor = F::kWeights[p / F::kIn] * F::kWeights[p % F::kIn];
      factors[p * kPanel + j] = (filter.steps[p] / divisor) * multiplier;
    }
  }
  for (int p = 0; p < kPoints; ++p) {
    int8_t* point = weights + p * PreparedPanel<F>::point_bytes(steps);
    for (int64_t step = 0; step + kInts <= steps; step += kInts) transpose_block(point + step * kStepBytes);
    add_weights(point, steps, -kTransformedFlip, starts + p * kPanel);
    arrange_weights(point, steps);
    std::memset(point + steps * kStepBytes, 0, kLineBytes);
  }
}

template <typename F>
void winograd_pack(const Conv2dU8Packing& packing) {
  const Conv2dShape& s = packing.shape->conv;
  const int64_t panel_bytes = PreparedPanel<F>::bytes(ceil_div(s.in_channels, kDepth));
  const Range range = share_of(ceil_div(s.out_channels, kPanel), packing.share);
  for (int64_t panel = range.begin; panel < range.end; ++panel) {
    pack_panel<F>(packing, panel, packing.prepared + panel * panel_bytes);
  }
}

}  // namespace
}  // namespace voxpress
