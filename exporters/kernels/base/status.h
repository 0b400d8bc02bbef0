// What a kernel says when it is done. No exceptions, no errno, no text: adapters turn these into their runtime's words.
#pragma once

#include <cstdint>

namespace voxpress {

enum class Status : int32_t {
  kOk = 0,
  kBadBits = 1,        // bits is not 1..8 or 32
  kBadShape = 2,       // a dimension is < 1, too large, or the sizes do not fit together
  kBadBufferSize = 3,  // codes, palette, scale, bias, residual, output or scratch has the wrong number of bytes
  kNullPointer = 4,
  kBadVersion = 5,       // op version this build does not know
  kBadPacked = 6,        // not what conv2d_pack made of this layer for the instruction set in use
  kBadIsa = 7,           // an instruction set that this build or this machine does not have
  kBadQuantization = 8,  // a scale that is not positive and finite, or a zero point outside 0..255
  kBadAlgorithm = 9,     // unknown, or not possible for this layer
  kBadShare = 10,        // a part that is not one of the parts
};

// A short fixed English text for each status, for the adapters' messages.
const char* status_text(Status status);

}  // namespace voxpress
