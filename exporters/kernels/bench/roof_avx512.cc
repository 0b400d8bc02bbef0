#define VOXPRESS_LANES 16
#define VOXPRESS_VECTORS 2
#define VOXPRESS_ROWS 14
#include "bench/roof_loop.h"

namespace voxpress {

extern const Roof roof_avx512;
const Roof roof_avx512 = {Isa::kAvx512, int64_t{kSums} * kLanes, roof_loop};

}  // namespace voxpress
