// The fp32 kernels for neon: 32 registers of four floats.
#define VOXPRESS_LANES 4
#define VOXPRESS_VECTORS 4
#define VOXPRESS_ROWS 6
#include "conv/family.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kNeon;
const Conv2dKernel winograd4_f32_panel_6x16_neon = winograd_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_panel_6x16_neon = winograd_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel winograd4_f32_pal_6x16_neon = winograd_pal_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_pal_6x16_neon = winograd_pal_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel dwconv2d_f32_panel_1x16_neon = depthwise_kernel(kIsa);
const Conv2dKernel dwconv2d_f32_pal_1x16_neon = depthwise_pal_kernel(kIsa);
const Conv2dKernel conv2d_f32_panel_6x16_neon = direct_kernel(kIsa);
const Conv2dKernel conv2d_f32_pal_6x16_neon = direct_pal_kernel(kIsa);

}  // namespace voxpress
