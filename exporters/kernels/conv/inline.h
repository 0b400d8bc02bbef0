// What headers of ISA files, whose loops stand or fall with it, say to the compiler; and their arithmetic on sizes. All
// of it unnamed: see conv/vector.h.
#pragma once

#include <cstdint>

#define VOXPRESS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define VOXPRESS_UNROLL _Pragma("clang loop unroll(full)")
#define VOXPRESS_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#else
#define VOXPRESS_UNROLL _Pragma("GCC unroll 40")
#define VOXPRESS_KEEP_LOOP _Pragma("GCC unroll 1")
#endif

namespace voxpress {
namespace {

VOXPRESS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
VOXPRESS_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
VOXPRESS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
VOXPRESS_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Calls Body<rows>::run(arguments...) for a number of rows that is known only now, 1 <= rows <= kMost.
template <template <int> class Body, int kMost>
struct WithRows {
  template <typename... Arguments>
  static void run(int64_t rows, Arguments&&... arguments) {
    if constexpr (kMost > 1) {
      if (rows < kMost) return WithRows<Body, kMost - 1>::run(rows, arguments...);
    }
    Body<kMost>::run(arguments...);
  }
};

}  // namespace
}  // namespace voxpress
