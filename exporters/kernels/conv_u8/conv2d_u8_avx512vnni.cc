// The integer kernels for avx512vnni.
#define VOXPRESS_LANES_HEADER "conv_u8/lanes_avx512vnni.h"
#include "conv_u8/family_u8.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kAvx512Vnni;
const Conv2dU8Kernel winograd4_u8_panel8_14x32_avx512vnni = winograd_kernel<IntegerF4>(kIsa, winograd4_u8_takes);
const Conv2dU8Kernel winograd2_u8_panel8_14x32_avx512vnni = winograd_kernel<IntegerF2>(kIsa, winograd2_u8_takes);
const Conv2dU8Kernel dwconv2d_u8_panel8_1x64_avx512vnni = depthwise_kernel(kIsa);
const Conv2dU8Kernel conv2d_u8_panel8_14x32_avx512vnni = direct_kernel(kIsa);
const Conv2dU8Kernel conv2d_f32_panel8_12x32_avx512vnni = float_kernel(kIsa);

}  // namespace voxpress
