// How a call is split between threads. Kernels start none themselves: each thread of the caller asks for its part.
#pragma once

#include <cstdint>

namespace voxpress {

// Part `part` of `parts` of a call. All parts together do what one call with the default does, bit by bit, in any order
// and at the same time.
struct Share {
  int32_t part = 0;
  int32_t parts = 1;
};

// 1 <= parts <= kMaxParts and 0 <= part < parts.
constexpr int32_t kMaxParts = 1024;
bool share_ok(const Share& share);

// [begin, end): what of `count` things belongs to the part; as even as can be, in order, empty if there are too few.
struct Range {
  int64_t begin;
  int64_t end;
};
Range share_of(int64_t count, const Share& share);

}  // namespace voxpress
