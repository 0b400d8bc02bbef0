#include "base/share.h"

namespace voxpress {

bool share_ok(const Share& share) {
  return share.parts >= 1 && share.parts <= kMaxParts && share.part >= 0 && share.part < share.parts;
}

Range share_of(int64_t count, const Share& share) {
  const int64_t whole = count / share.parts;
  const int64_t rest = count % share.parts;
  const auto start = [&](int64_t part) { return part * whole + (part < rest ? part : rest); };
  return {start(share.part), start(share.part + 1)};
}

}  // namespace voxpress
