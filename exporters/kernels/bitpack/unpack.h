// Packed codes: code k sits in bits [k * bits, (k + 1) * bits) of a little-endian bit stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace voxpress {

// out[j] = code first + j, for j < count; bits 1..8. `packed` needs no alignment and no byte outside it is read.
// kBadBits, kBadShape (negative first or count), kBadBufferSize (the range ends behind the buffer), kNullPointer.
Status unpack_codes(const void* packed, size_t packed_bytes, int32_t bits, int64_t first, int64_t count, uint8_t* out);

}  // namespace voxpress
