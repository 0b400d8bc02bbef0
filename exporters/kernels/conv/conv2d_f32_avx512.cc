// The fp32 kernels for avx512: 32 registers of sixteen floats.
#define VOXPRESS_LANES 16
#define VOXPRESS_VECTORS 2
#define VOXPRESS_ROWS 14
#include "conv/family.h"

namespace voxpress {

constexpr Isa kIsa = Isa::kAvx512;
const Conv2dKernel winograd4_f32_panel_14x32_avx512 = winograd_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_panel_14x32_avx512 = winograd_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel winograd4_f32_pal_14x32_avx512 = winograd_pal_kernel<F4>(kIsa, winograd4_takes);
const Conv2dKernel winograd2_f32_pal_14x32_avx512 = winograd_pal_kernel<F2>(kIsa, winograd2_takes);
const Conv2dKernel dwconv2d_f32_panel_1x64_avx512 = depthwise_kernel(kIsa);
const Conv2dKernel dwconv2d_f32_pal_1x64_avx512 = depthwise_pal_kernel(kIsa);
const Conv2dKernel conv2d_f32_panel_14x32_avx512 = direct_kernel(kIsa);
const Conv2dKernel conv2d_f32_pal_14x32_avx512 = direct_pal_kernel(kIsa);

}  // namespace voxpress
