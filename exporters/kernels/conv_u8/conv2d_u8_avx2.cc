// The integer kernels for avx2.
#define VOXPRESS_LANES_HEADER "conv_u8/lanes_avx2.h"
#include "conv_u8/family_u8.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kAvx2;
const Conv2dU8Kernel winograd4_u8_panel8_6x16_avx2 = winograd_kernel<IntegerF4>(kIsa, winograd4_u8_takes);
const Conv2dU8Kernel winograd2_u8_panel8_6x16_avx2 = winograd_kernel<IntegerF2>(kIsa, winograd2_u8_takes);
const Conv2dU8Kernel dwconv2d_u8_panel8_1x32_avx2 = depthwise_kernel(kIsa);
const Conv2dU8Kernel conv2d_u8_panel8_6x16_avx2 = direct_kernel(kIsa);
const Conv2dU8Kernel conv2d_f32_panel8_6x16_avx2 = float_kernel(kIsa);

}  // namespace voxpress
