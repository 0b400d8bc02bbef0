// The vector that the kernels of one ISA file are written in: kLanes floats, lowered by GCC and Clang to one register
// of the file's instruction set, with kVectors of them side by side in a panel and up to kRows positions summed at a
// time.
//
// Included by ISA files only, after they have defined VOXPRESS_LANES, VOXPRESS_VECTORS and VOXPRESS_ROWS. Everything
// here and in the headers on top of it lies in an unnamed namespace, so that no function compiled for a wider machine
// can be taken for its namesake of another file; for the same reason they use no templates of the standard library.
#pragma once

#include <cstdint>
#include <cstring>

#include "conv/inline.h"
#include "conv/variants.h"

namespace voxpress {
namespace {

constexpr int kLanes = VOXPRESS_LANES;
constexpr int kVectors = VOXPRESS_VECTORS;
constexpr int kRows = VOXPRESS_ROWS;
constexpr int kPanel = kVectors * kLanes;  // output channels of a panel
static_assert(kPanel <= kChannelRound && kChannelRound % kPanel == 0, "scale and bias are padded to whole panels");

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

VOXPRESS_INLINE Lanes load(const float* source) {
  Lanes value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

VOXPRESS_INLINE void store(float* target, Lanes value) { std::memcpy(target, &value, sizeof(value)); }

VOXPRESS_INLINE Lanes broadcast(float value) { return value - Lanes{}; }

// The first `count` lanes; the others are zero. No float outside is touched.
VOXPRESS_INLINE Lanes load_first(const float* source, int64_t count) {
  if (count >= kLanes) return load(source);
  float lanes[kLanes] = {};
  for (int64_t j = 0; j < count; ++j) lanes[j] = source[j];
  return load(lanes);
}

VOXPRESS_INLINE void store_first(float* target, int64_t count, Lanes value) {
  if (count >= kLanes) return store(target, value);
  float lanes[kLanes];
  store(lanes, value);
  for (int64_t j = 0; j < count; ++j) target[j] = lanes[j];
}

// Whether so many output channels side by side fill more than half a vector. A narrower instruction set wastes less on
// others, and has no partial vectors of eight: kernels with more lanes leave them to it.
VOXPRESS_INLINE bool fills_vectors(int64_t channels) { return kLanes <= 8 || channels > kLanes / 2; }

// Keeps NaN, like the reference does: a broken network must not turn into a plausible one.
VOXPRESS_INLINE Lanes relu(Lanes value) {
  const Lanes zero = {};
  return value < zero ? zero : value;
}

// out = act(scale * sum + bias + residual) for `count` channels of one position from channel `channel` on; `at` is
// where they lie in output and residual.
VOXPRESS_INLINE void finish(const Conv2dCall& call, int64_t channel, int64_t at, int64_t count, Lanes sum) {
  Lanes value = load(call.scale + channel) * sum + load(call.bias + channel);
  if (call.tensors->residual != nullptr) value += load_first(call.tensors->residual + at, count);
  store_first(call.tensors->output + at, count, call.shape->relu ? relu(value) : value);
}

}  // namespace
}  // namespace voxpress
