// How fast one core can multiply and add when nothing else is in its way: the roof that kernels are held against.
#pragma once

#include <cstdint>

#include "base/isa.h"

namespace voxpress {

// Multiply-adds of one call of a roof loop with `rounds` rounds; the loop returns something that depends on all of
// them.
struct Roof {
  Isa isa;
  int64_t macs_per_round;
  float (*loop)(int64_t rounds, float seed);
  bool integers = false;  // what mode fast multiplies with this instruction set, else floats
};

}  // namespace voxpress
