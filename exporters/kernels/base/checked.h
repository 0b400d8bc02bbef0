// Arithmetic on sizes that come from outside: a product that does not fit says so instead of wrapping.
#pragma once

#include <cstdint>

namespace voxpress {

// No tensor has more elements than this, so that byte and bit counts of any tensor fit in 64 bits.
constexpr int64_t kMaxElements = int64_t{1} << 40;

// out = product of the sizes. False if a size is < 1 or a product exceeds kMaxElements; out is then unspecified.
template <typename... Sizes>
bool element_count(int64_t* out, Sizes... sizes) {
  *out = 1;
  const auto times = [out](int64_t size) {
    if (size < 1 || size > kMaxElements / *out) return false;
    *out *= size;
    return true;
  };
  return (times(sizes) && ...);
}

}  // namespace voxpress
