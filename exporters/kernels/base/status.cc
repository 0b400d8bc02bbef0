#include "base/status.h"

namespace voxpress {

const char* status_text(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kBadBits:
      return "bits is not 1..8 or 32";
    case Status::kBadShape:
      return "a dimension is out of range or the sizes do not fit together";
    case Status::kBadBufferSize:
      return "a buffer has the wrong number of bytes";
    case Status::kNullPointer:
      return "a buffer is missing";
    case Status::kBadVersion:
      return "unknown op version";
    case Status::kBadPacked:
      return "the packed weights are not those of this layer, or were packed for another instruction set";
    case Status::kBadIsa:
      return "the instruction set is unknown, or this machine does not have it";
    case Status::kBadQuantization:
      return "a quantization scale is not positive and finite, or a zero point is not 0..255";
    case Status::kBadAlgorithm:
      return "the algorithm is unknown, or this layer cannot be run by it";
    case Status::kBadShare:
      return "the share of a call is not one of its parts";
  }
  return "unknown status";
}

}  // namespace voxpress
