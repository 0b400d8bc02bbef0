// The fp32 kernels for portable: vectors of four floats, which every compiler target has in some form; nothing is
// fused.
#define VOXPRESS_LANES 4
#define VOXPRESS_VECTORS 2
#define VOXPRESS_ROWS 4
#include "conv/family.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kPortable;
const Conv2dKernel winograd4_f32_panel_4x8_portable = winograd_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_panel_4x8_portable = winograd_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel winograd4_f32_pal_4x8_portable = winograd_pal_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_pal_4x8_portable = winograd_pal_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel dwconv2d_f32_panel_1x16_portable = depthwise_kernel(kIsa);
const Conv2dKernel dwconv2d_f32_pal_1x16_portable = depthwise_pal_kernel(kIsa);
const Conv2dKernel conv2d_f32_panel_4x8_portable = direct_kernel(kIsa);
const Conv2dKernel conv2d_f32_pal_4x8_portable = direct_pal_kernel(kIsa);

}  // namespace voxpress
