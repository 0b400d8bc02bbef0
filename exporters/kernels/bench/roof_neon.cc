#define VOXPRESS_LANES 4
#define VOXPRESS_VECTORS 4
#define VOXPRESS_ROWS 6
#include "bench/roof_loop.h"

namespace voxpress {

extern const Roof roof_neon;
const Roof roof_neon = {Isa::kNeon, int64_t{kSums} * kLanes, roof_loop};

}  // namespace voxpress
