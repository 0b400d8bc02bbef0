#define VOXPRESS_LANES 8
#define VOXPRESS_VECTORS 2
#define VOXPRESS_ROWS 6
#include "bench/roof_loop.h"

namespace voxpress {

extern const Roof roof_avx2;
const Roof roof_avx2 = {Isa::kAvx2, int64_t{kSums} * kLanes, roof_loop};

}  // namespace voxpress
