// The integer kernels for neondot.
#define VOXPRESS_NEON_DOT
#define VOXPRESS_LANES_HEADER "conv_u8/lanes_neon.h"
#include "conv_u8/family_u8.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kNeonDot;
const Conv2dU8Kernel winograd4_u8_panel8_5x16_neondot = winograd_kernel<IntegerF4>(kIsa, winograd4_u8_takes);
const Conv2dU8Kernel winograd2_u8_panel8_5x16_neondot = winograd_kernel<IntegerF2>(kIsa, winograd2_u8_takes);
const Conv2dU8Kernel dwconv2d_u8_panel8_1x16_neondot = depthwise_kernel(kIsa);
const Conv2dU8Kernel conv2d_u8_panel8_5x16_neondot = direct_kernel(kIsa);
const Conv2dU8Kernel conv2d_f32_panel8_5x16_neondot = float_kernel(kIsa);

}  // namespace voxpress
