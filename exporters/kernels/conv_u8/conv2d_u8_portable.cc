// The integer kernels for portable: what all other instruction sets are compared with, bit by bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "conv_u8/rounding.h"
#include "conv_u8/variants.h"
#include "conv_u8/weights.h"
#include "winograd/integer_transforms.h"

namespace voxpress {
namespace {

constexpr Isa kIsa = Isa::kPortable;

float element(const void* tensor, Element kind, int64_t at) {
  if (kind == Element::kF32) return static_cast<const float*>(tensor)[at];
  return static_cast<float>(static_cast<const uint8_t*>(tensor)[at]);
}

float start_of(const Finish& f, int64_t channel) { return f.bias[channel] + f.residual_shift; }

// Of output `at` of channel `channel`, from t on as it is after the first line. `window` counts for some two-valued
// palettes.
void finish(const Conv2dU8Call& call, int64_t channel, int64_t at, float t, float window) {
  const Conv2dU8Shape& s = *call.shape;
  const Finish& f = call.finish;
  if (f.offset != nullptr) t = fused(window, f.offset[channel], t);
  if (call.tensors->residual != nullptr) {
    t = fused(element(call.tensors->residual, s.residual, at), f.res_multiplier, t);
  }
  if (s.output == Element::kF32) {
    static_cast<float*>(call.tensors->output)[at] = s.conv.relu && t < 0.0f ? 0.0f : t;
  } else {
    const float clamped = t > f.low ? std::min(t, 255.0f) : f.low;
    static_cast<uint8_t*>(call.tensors->output)[at] = static_cast<uint8_t>(std::nearbyint(clamped));
  }
}

// Where the window of an output position begins in the input; may lie outside.
struct Window {
  int64_t n, frame, mel;
};

Window window_of(const Conv2dShape& s, int64_t position) {
  const int64_t mel = position % conv2d_out_mel(s);
  const int64_t line = position / conv2d_out_mel(s);
  const int64_t frames = conv2d_out_frames(s);
  return {line / frames, line % frames * s.stride_frames - s.pad_frames, mel * s.stride_mel - s.pad_mel};
}

// Calls visit(input index, weight index) for each run of I / groups inputs of a window that lies inside.
template <typename Visit>
void visit_window(const Conv2dShape& s, const Window& at, int64_t group, const Visit& visit) {
  const int64_t depth = s.in_channels / s.groups;
  for (int64_t dt = 0; dt < s.kernel_frames; ++dt) {
    for (int64_t df = 0; df < s.kernel_mel; ++df) {
      const int64_t frame = at.frame + dt;
      const int64_t mel = at.mel + df;
      if (frame < 0 || frame >= s.in_frames || mel < 0 || mel >= s.in_mel) continue;
      visit(((at.n * s.in_frames + frame) * s.in_mel + mel) * s.in_channels + group * depth,
            (dt * s.kernel_mel + df) * depth);
    }
  }
}

// The sum of all inputs of a window.
float window_sum(const Conv2dU8Call& call, const Window& at, int64_t group) {
  const Conv2dU8Shape& s = *call.shape;
  const int64_t depth = s.conv.in_channels / s.conv.groups;
  if (s.input == Element::kF32) {
    float sum = 0.0f;
    visit_window(s.conv, at, group, [&](int64_t x, int64_t) {
      for (int64_t i = 0; i < depth; ++i) sum = sum + static_cast<const float*>(call.tensors->input)[x + i];
    });
    return sum;
  }
  int32_t sum = 0;
  visit_window(s.conv, at, group, [&](int64_t x, int64_t) {
    for (int64_t i = 0; i < depth; ++i) sum += static_cast<const uint8_t*>(call.tensors->input)[x + i] - s.in.zero;
  });
  return static_cast<float>(sum);
}

// Direct: weights as they lie in the file, [O][dt][df][I / groups], one byte each.

int64_t row_weights(const Conv2dShape& s) { return s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups); }

bool direct_takes(const Conv2dU8Shape&) { return true; }

int64_t direct_prepared_bytes(const Conv2dU8Shape& s) {
  return round_up(s.conv.out_channels * row_weights(s.conv), 64);
}

void direct_pack(const Conv2dU8Packing& packing) {
  const Conv2dShape& s = packing.shape->conv;
  const Range range = share_of(s.out_channels, packing.share);
  for (int64_t o = range.begin; o < range.end; ++o) {
    decode_int8(s, *packing.weights, *packing.palette, o, 0, row_weights(s),
                reinterpret_cast<int8_t*>(packing.prepared) + o * row_weights(s));
  }
}

int64_t no_scratch_bytes(const Conv2dU8Shape&) { return 0; }

void direct_run(const Conv2dU8Call& call) {
  const Conv2dU8Shape& s = *call.shape;
  const Conv2dShape& conv = s.conv;
  const int64_t depth = conv.in_channels / conv.groups;
  const int64_t outputs = conv.out_channels / conv.groups;
  const Range range = share_of(conv.batch * conv2d_out_frames(conv) * conv2d_out_mel(conv), call.share);
  for (int64_t position = range.begin; position < range.end; ++position) {
    const Window at = window_of(conv, position);
    for (int64_t group = 0; group < conv.groups; ++group) {
      const float window = call.finish.offset == nullptr ? 0.0f : window_sum(call, at, group);
      for (int64_t o = group * outputs; o < (group + 1) * outputs; ++o) {
        const int8_t* weights = reinterpret_cast<const int8_t*>(call.prepared) + o * row_weights(conv);
        int32_t sum = 0;
        float float_sum = 0.0f;
        visit_window(conv, at, group, [&](int64_t x, int64_t w) {
          if (s.input == Element::kF32) {
            const float* input = static_cast<const float*>(call.tensors->input) + x;
            for (int64_t i = 0; i < depth; ++i) float_sum = float_sum + input[i] * static_cast<float>(weights[w + i]);
          } else {
            const uint8_t* input = static_cast<const uint8_t*>(call.tensors->input) + x;
            for (int64_t i = 0; i < depth; ++i) sum += (input[i] - s.in.zero) * weights[w + i];
          }
        });
        const float total = s.input == Element::kF32 ? float_sum : static_cast<float>(sum);
        const float t = fused(total, call.finish.multiplier[o], start_of(call.finish, o));
        finish(call, o, position * conv.out_channels + o, t, window);
      }
    }
  }
}

// Winograd: [O][point] of the factors that make floats of sums, then [O][point][I] of transformed int8 weights.

template <typename F>
constexpr int kPoints = F::kIn * F::kIn;

template <typename F>
int64_t factor_bytes(const Conv2dU8Shape& s) {
  return round_up(s.conv.out_channels * kPoints<F> * static_cast<int64_t>(sizeof(float)), 64);
}

template <typename F>
int64_t winograd_prepared_bytes(const Conv2dU8Shape& s) {
  return factor_bytes<F>(s) + round_up(s.conv.out_channels * kPoints<F> * s.conv.in_channels, 64);
}

// From values [kSide][kSide] `stride` apart to [kIn][kIn], by `transform` in both directions, columns first.
template <int kFrom, int kTo, typename T, typename Transform>
void transform_both(const T (&source)[kFrom][kFrom], T (&target)[kTo][kTo], const Transform& transform) {
  T half[kTo][kFrom];
  for (int j = 0; j < kFrom; ++j) {
    T column[kFrom];
    T result[kTo];
    for (int i = 0; i < kFrom; ++i) column[i] = source[i][j];
    transform(column, result);
    for (int i = 0; i < kTo; ++i) half[i][j] = result[i];
  }
  for (int i = 0; i < kTo; ++i) transform(half[i], target[i]);
}

// The transformed weights of one output channel and input channel `i`.
template <typename F>
void transform_weights(const int8_t* taps, int64_t channels, int32_t (&u)[F::kIn][F::kIn]) {
  int32_t g[3][3];
  for (int tap = 0; tap < 9; ++tap) g[tap / 3][tap % 3] = taps[tap * channels];
  transform_both(g, u, [](const auto& from, auto& to) { F::weights(from, to); });
}

template <typename F>
void winograd_pack(const Conv2dU8Packing& packing) {
  const Conv2dShape& s = packing.shape->conv;
  const Range range = share_of(s.out_channels, packing.share);
  constexpr int64_t kChunk = 64;  // input channels decoded at a time, to stay off the heap
  int8_t taps[9][kChunk];
  const auto decode = [&](int64_t o, int64_t i0) {
    const int64_t count = std::min(kChunk, s.in_channels - i0);
    for (int64_t tap = 0; tap < 9; ++tap) {
      decode_int8(s, *packing.weights, *packing.palette, o, tap * s.in_channels + i0, count, taps[tap]);
    }
    return count;
  };
  for (int64_t o = range.begin; o < range.end; ++o) {
    int32_t u[F::kIn][F::kIn];
    int32_t largest[kPoints<F>] = {};
    for (int64_t i0 = 0; i0 < s.in_channels; i0 += kChunk) {
      const int64_t count = decode(o, i0);
      for (int64_t i = 0; i < count; ++i) {
        transform_weights<F>(taps[0] + i, kChunk, u);
        for (int p = 0; p < kPoints<F>; ++p) largest[p] = std::max(largest[p], std::abs(u[p / F::kIn][p % F::kIn]));
      }
    }
    auto* factors = reinterpret_cast<float*>(packing.prepared) + o * kPoints<F>;
    for (int p = 0; p < kPoints<F>; ++p) {
      const float divisor = F::kWeights[p / F::kIn] * F::kWeights[p % F::kIn];
      const float step = kRoundOne / static_cast<float>(rounding_factor(largest[p]));
      factors[p] = (step / divisor) * channel_multiplier(*packing.shape, *packing.weights, *packing.palette, o);
    }
    int8_t* target =
        reinterpret_cast<int8_t*>(packing.prepared + factor_bytes<F>(*packing.shape)) + o * kPoints<F> * s.in_channels;
    for (int64_t i0 = 0; i0 < s.in_channels; i0 += kChunk) {
      const int64_t count = decode(o, i0);
      for (int64_t i = 0; i < count; ++i) {
        transform_weights<F>(taps[0] + i, kChunk, u);
        for (int p = 0; p < kPoints<F>; ++p) {
          target[p * s.in_channels + i0 + i] =
              static_cast<int8_t>(round_to_int8(u[p / F::kIn][p % F::kIn], rounding_factor(largest[p])));
        }
      }
    }
  }
}

// Scratch: the transformed inputs of one tile, [point][I], and their int8.
template <typename F>
int64_t winograd_scratch_bytes(const Conv2dU8Shape& s) {
  return round_up(kPoints<F> * s.conv.in_channels * static_cast<int64_t>(sizeof(int16_t) + sizeof(int8_t)), 64);
}

struct Tile {
  int64_t n, frame, mel;  // of its first output
};

// Transforms and rounds the inputs of a tile; steps[p] is what one of position p is worth.
template <typename F>
void transform_tile(const Conv2dU8Call& call, const Tile& tile, int16_t* v, int8_t* rounded, float* steps) {
  const Conv2dU8Shape& s = *call.shape;
  const Conv2dShape& conv = s.conv;
  const auto* input = static_cast<const uint8_t*>(call.tensors->input);
  int32_t largest[kPoints<F>] = {};
  for (int64_t c = 0; c < conv.in_channels; ++c) {
    int32_t d[F::kIn][F::kIn];
    int32_t t[F::kIn][F::kIn];
    for (int i = 0; i < F::kIn; ++i) {
      for (int j = 0; j < F::kIn; ++j) {
        const int64_t frame = tile.frame - conv.pad_frames + i;
        const int64_t mel = tile.mel - conv.pad_mel + j;
        const bool inside = frame >= 0 && frame < conv.in_frames && mel >= 0 && mel < conv.in_mel;
        const int64_t at = ((tile.n * conv.in_frames + frame) * conv.in_mel + mel) * conv.in_channels + c;
        d[i][j] = inside ? input[at] - s.in.zero : 0;
      }
    }
    transform_both(d, t, [](const auto& from, auto& to) { F::input(from, to); });
    for (int p = 0; p < kPoints<F>; ++p) {
      const int32_t value = t[p / F::kIn][p % F::kIn];
      v[p * conv.in_channels + c] = static_cast<int16_t>(value);
      largest[p] = std::max(largest[p], std::abs(value));
    }
  }
  for (int p = 0; p < kPoints<F>; ++p) {
    const int32_t factor = rounding_factor(largest[p]);
    steps[p] = kRoundOne / static_cast<float>(factor);
    for (int64_t c = 0; c < conv.in_channels; ++c) {
      const int64_t at = p * conv.in_channels + c;
      rounded[at] = static_cast<int8_t>(round_to_int8(v[at], factor));
    }
  }
}

// The window sums of a tile's outputs, 0 for those outside; times the ratio, as values of points: see
// winograd_u8.h.
template <typename F>
void spread_windows(const Conv2dU8Call& call, const Tile& tile, float (&spread)[F::kOut][F::kOut]) {
  const Conv2dShape& s = call.shape->conv;
  float windows[F::kOut][F::kOut] = {};
  for (int i = 0; i < F::kOut && tile.frame + i < conv2d_out_frames(s); ++i) {
    for (int j = 0; j < F::kOut && tile.mel + j < conv2d_out_mel(s); ++j) {
      const int64_t position = (tile.n * conv2d_out_frames(s) + tile.frame + i) * conv2d_out_mel(s) + tile.mel + j;
      windows[i][j] = window_sum(call, window_of(s, position), 0);
    }
  }
  transform_both(windows, spread, [](const auto& from, auto& to) { F::spread(from, to); });
  for (auto& line : spread) {
    for (float& value : line) value = value * call.finish.window_ratio;
  }
}

template <typename F>
void multiply_tile(const Conv2dU8Call& call, const Tile& tile, const int8_t* inputs, const float* steps) {
  const Conv2dShape& s = call.shape->conv;
  const auto* factors = reinterpret_cast<const float*>(call.prepared);
  const auto* weights = reinterpret_cast<const int8_t*>(call.prepared + factor_bytes<F>(*call.shape));
  // Weights of +-1 are not rounded: what a point is worth is the same for all channels.
  const bool whole = s.bits == 1;
  float added[F::kIn][F::kIn] = {};
  if (call.finish.offset != nullptr) {
    float spread[F::kOut][F::kOut];
    spread_windows<F>(call, tile, spread);
    for (int i = 0; i < F::kOut; ++i) {
      for (int j = 0; j < F::kOut; ++j) added[F::kSpread[i]][F::kSpread[j]] = spread[i][j];
    }
  }
  Conv2dU8Call written = call;
  written.finish.offset = nullptr;  // is in the sums
  for (int64_t o = 0; o < s.out_channels; ++o) {
    float scaled[F::kIn][F::kIn];
    for (int p = 0; p < kPoints<F>; ++p) {
      int32_t sum = 0;
      for (int64_t i = 0; i < s.in_channels; ++i) {
        sum += inputs[p * s.in_channels + i] * weights[(o * kPoints<F> + p) * s.in_channels + i];
      }
      const auto total = static_cast<float>(sum);
      float& value = scaled[p / F::kIn][p % F::kIn];
      if (!whole) {
        value = total * steps[p];
      } else {
        value = fused(total, steps[p] * point_factor<F>(p), added[p / F::kIn][p % F::kIn]);
      }
    }
    float y[F::kOut][F::kOut];
    float half[F::kOut][F::kIn];
    for (int j = 0; j < F::kIn; ++j) {
      float column[F::kIn];
      float factor[F::kIn];
      float result[F::kOut];
      for (int i = 0; i < F::kIn; ++i) {
        column[i] = scaled[i][j];
        factor[i] = factors[o * kPoints<F> + i * F::kIn + j];
      }
      if (whole) {
        F::output(column, result);
      } else {
        F::output_of_products(column, factor, j == 1 ? start_of(call.finish, o) : 0.0f, result);
      }
      for (int i = 0; i < F::kOut; ++i) half[i][j] = result[i];
    }
    for (int i = 0; i < F::kOut; ++i) F::output(half[i], y[i]);
    for (int i = 0; i < F::kOut && tile.frame + i < conv2d_out_frames(s); ++i) {
      for (int j = 0; j < F::kOut && tile.mel + j < conv2d_out_mel(s); ++j) {
        const int64_t position = (tile.n * conv2d_out_frames(s) + tile.frame + i) * conv2d_out_mel(s) + tile.mel + j;
        const float t = whole ? fused(y[i][j], call.finish.multiplier[o], start_of(call.finish, o)) : y[i][j];
        finish(written, o, position * s.out_channels + o, t, 0.0f);
      }
    }
  }
}

template <typename F>
void winograd_run(const Conv2dU8Call& call) {
  const Conv2dShape& s = call.shape->conv;
  const int64_t tiles_frames = (conv2d_out_frames(s) + F::kOut - 1) / F::kOut;
  const int64_t tiles_mel = (conv2d_out_mel(s) + F::kOut - 1) / F::kOut;
  auto* v = reinterpret_cast<int16_t*>(call.scratch);
  auto* rounded = reinterpret_cast<int8_t*>(v + kPoints<F> * s.in_channels);
  const Range range = share_of(s.batch * tiles_frames * tiles_mel, call.share);
  for (int64_t t = range.begin; t < range.end; ++t) {
    const int64_t line = t / tiles_mel;
    const Tile tile{line / tiles_frames, line % tiles_frames * F::kOut, t % tiles_mel * F::kOut};
    float steps[kPoints<F>];
    transform_tile<F>(call, tile, v, rounded, steps);
    multiply_tile<F>(call, tile, rounded, steps);
  }
}

}  // namespace

const Conv2dU8Kernel winograd4_u8_panel8_1x1_portable = {kIsa,
                                                         winograd4_u8_takes,
                                                         winograd_prepared_bytes<IntegerF4>,
                                                         winograd_pack<IntegerF4>,
                                                         winograd_scratch_bytes<IntegerF4>,
                                                         winograd_run<IntegerF4>};
const Conv2dU8Kernel winograd2_u8_panel8_1x1_portable = {kIsa,
                                                         winograd2_u8_takes,
                                                         winograd_prepared_bytes<IntegerF2>,
                                                         winograd_pack<IntegerF2>,
                                                         winograd_scratch_bytes<IntegerF2>,
                                                         winograd_run<IntegerF2>};
const Conv2dU8Kernel conv2d_u8_panel8_1x1_portable = {kIsa,        direct_takes,     direct_prepared_bytes,
                                                      direct_pack, no_scratch_bytes, direct_run};

}  // namespace voxpress
