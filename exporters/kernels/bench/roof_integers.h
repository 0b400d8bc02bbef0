// The loop of products of bytes or words, summed in 32 bits; included by ISA files only, after they have defined the
// vector `Integers`, `integers(int)` that fills it and `multiply_add(sum, factor, term)`.
#pragma once

#include "bench/roof.h"
#include "bench/touch.h"
#include "conv/inline.h"

namespace voxpress {
namespace {

// Each sum as a variable of its own, so that each stays in a register.
template <int kIndex>
struct Sums {
  Integers sum = integers(kIndex);
  Sums<kIndex - 1> rest;

  VOXPRESS_INLINE void add(Integers factor, Integers& term) {
    sum = multiply_add(sum, factor, term);
    VOXPRESS_TOUCH(sum);  // for all the compiler knows a new value
    rest.add(factor, term);
  }
  VOXPRESS_INLINE Integers total() const { return sum + rest.total(); }
};

template <>
struct Sums<0> {
  VOXPRESS_INLINE void add(Integers, Integers&) {}
  VOXPRESS_INLINE Integers total() const { return integers(0); }
};

template <int kSums>
float roof_loop(int64_t rounds, float seed) {
  Sums<kSums> sums;
  const Integers factor = integers(static_cast<int>(seed * 1e6f));
  Integers term = integers(3);
  for (int64_t round = 0; round < rounds; ++round) sums.add(factor, term);
  return static_cast<float>(sums.total()[0]);
}

}  // namespace
}  // namespace voxpress
