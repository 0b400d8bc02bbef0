// The integer kernels of one ISA file.
#pragma once

#include "conv_u8/depthwise_u8.h"
#include "conv_u8/direct_u8.h"
#include "conv_u8/float_u8.h"
#include "conv_u8/winograd_pack.h"
#include "conv_u8/winograd_u8.h"

namespace voxpress {
namespace {

template <typename F>
constexpr Conv2dU8Kernel winograd_kernel(Isa isa, bool (*takes)(const Conv2dU8Shape&)) {
  return {isa, takes, winograd_prepared_bytes<F>, winograd_pack<F>, winograd_scratch_bytes<F>, winograd_run<F>};
}

constexpr Conv2dU8Kernel depthwise_kernel(Isa isa) {
  return {isa, depthwise_takes, depthwise_prepared_bytes, depthwise_pack, depthwise_scratch_bytes, depthwise_run};
}

constexpr Conv2dU8Kernel direct_kernel(Isa isa) {
  return {isa, direct_takes, direct_prepared_bytes, direct_pack, direct_scratch_bytes, direct_run};
}

constexpr Conv2dU8Kernel float_kernel(Isa isa) {
  return {isa, float_takes, float_prepared_bytes, float_pack, float_scratch_bytes, float_run};
}

}  // namespace
}  // namespace voxpress
