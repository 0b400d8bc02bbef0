#define VOXPRESS_LANES 4
#define VOXPRESS_VECTORS 2
#define VOXPRESS_ROWS 4
#include "bench/roof_loop.h"

namespace voxpress {

extern const Roof roof_portable;
const Roof roof_portable = {Isa::kPortable, int64_t{kSums} * kLanes, roof_loop};

}  // namespace voxpress
