// Which kernels ran: one bit per variant for the whole process, set by the *_run functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace voxpress {

// One value per row of kernels.inc.
enum class Kernel : uint32_t {
#define VOXPRESS_CONV2D_KERNEL(name) name,
#define VOXPRESS_CONV2DU8_KERNEL(name) name,
#define VOXPRESS_STATSPOOL_KERNEL(name) name,
#define VOXPRESS_FBANK_KERNEL(name) name,
#include "kernels.inc"
  kCount
};

const char* kernel_name(Kernel kernel);

void mark_used(Kernel kernel);

// Writes the names of the kernels that ran so far, comma separated, in table order, cut to `size` bytes with the
// closing zero. Returns the length of the whole text without that zero. `text` may be null if `size` is 0.
size_t kernels_used(char* text, size_t size);

}  // namespace voxpress
