// The loop itself; included by ISA files only, like conv/vector.h on which it stands.
#pragma once

#include "bench/roof.h"
#include "bench/touch.h"
#include "conv/vector.h"

namespace voxpress {
namespace {

// As many sums as fit into registers beside the two factors: enough to hide the latency of each addition.
constexpr int kSums = kRows * kVectors;

float roof_loop(int64_t rounds, float seed) {
  Lanes sums[kSums];
  VOXPRESS_UNROLL
  for (int j = 0; j < kSums; ++j) sums[j] = broadcast(seed + static_cast<float>(j));
  const Lanes factor = broadcast(seed);
  Lanes term = broadcast(seed * 0.5f);
  for (int64_t round = 0; round < rounds; ++round) {
    VOXPRESS_UNROLL
    for (int j = 0; j < kSums; ++j) {
      sums[j] += factor * term;
      VOXPRESS_TOUCH(term);  // for all the compiler knows a new value, whose product it has not had before
    }
  }
  Lanes total = {};
  VOXPRESS_UNROLL
  for (int j = 0; j < kSums; ++j) total += sums[j];
  return total[0];
}

}  // namespace
}  // namespace voxpress
