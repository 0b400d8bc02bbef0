// The fp32 kernels for avx2: 16 registers of eight floats.
#define VOXPRESS_LANES 8
#define VOXPRESS_VECTORS 2
#define VOXPRESS_ROWS 6
#include "conv/family.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kAvx2;
const Conv2dKernel winograd4_f32_panel_6x16_avx2 = winograd_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_panel_6x16_avx2 = winograd_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel winograd4_f32_pal_6x16_avx2 = winograd_pal_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_pal_6x16_avx2 = winograd_pal_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel dwconv2d_f32_panel_1x32_avx2 = depthwise_kernel(kIsa);
const Conv2dKernel dwconv2d_f32_pal_1x32_avx2 = depthwise_pal_kernel(kIsa);
const Conv2dKernel conv2d_f32_panel_6x16_avx2 = direct_kernel(kIsa);
const Conv2dKernel conv2d_f32_pal_6x16_avx2 = direct_pal_kernel(kIsa);

}  // namespace voxpress
