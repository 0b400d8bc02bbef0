// The integer kernels for neon.
#define VOXPRESS_LANES_HEADER "conv_u8/lanes_neon.h"
#include "conv_u8/family_u8.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kNeon;
const Conv2dU8Kernel winograd4_u8_panel8_3x16_neon = winograd_kernel<IntegerF4>(kIsa, winograd4_u8_takes);
const Conv2dU8Kernel winograd2_u8_panel8_3x16_neon = winograd_kernel<IntegerF2>(kIsa, winograd2_u8_takes);
const Conv2dU8Kernel dwconv2d_u8_panel8_1x16_neon = depthwise_kernel(kIsa);
const Conv2dU8Kernel conv2d_u8_panel8_3x16_neon = direct_kernel(kIsa);
const Conv2dU8Kernel conv2d_f32_panel8_3x16_neon = float_kernel(kIsa);

}  // namespace voxpress
