// Four floats in one register: the vector type that GCC and Clang lower to SSE2, NEON or plain scalars, so that the
// portable kernels keep their accumulators in registers on every target without intrinsics.
#pragma once

#include <cstring>

namespace voxpress {

typedef float Lanes __attribute__((vector_size(16)));
constexpr int kLanes = 4;

inline Lanes load(const float* source) {
  Lanes value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

inline void store(float* target, Lanes value) { std::memcpy(target, &value, sizeof(value)); }

inline Lanes broadcast(float value) { return Lanes{value, value, value, value}; }

// Keeps NaN, like the reference does: a broken network must not turn into a plausible one.
inline Lanes relu(Lanes value) {
  const Lanes zero = {};
  return value < zero ? zero : value;
}

}  // namespace voxpress
