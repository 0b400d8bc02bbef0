// Random layers of the family conv2d_u8 on every instruction set of the machine against the portable kernels, bit by
// bit.
#pragma once

struct Comparison {
  int comparisons = 0;
  int failures = 0;
};

// Prints each layer that is off.
Comparison compare_u8(long layers);
