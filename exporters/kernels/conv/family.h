// The eight kernels of one ISA file.
#pragma once

#include "conv/depthwise.h"
#include "conv/direct.h"
#include "winograd/winograd.h"

namespace voxpress {
namespace {

template <typename F>
constexpr Conv2dKernel winograd_kernel(Isa isa, bool (*takes)(const Conv2dShape&)) {
  return {isa, takes, winograd_prepared_floats<F>, winograd_pack<F>, winograd_scratch_bytes<F>, winograd_run<F>};
}

template <typename F>
constexpr Conv2dKernel winograd_pal_kernel(Isa isa, bool (*takes)(const Conv2dShape&)) {
  return {isa, takes, nullptr, nullptr, winograd_pal_scratch_bytes<F>, winograd_pal_run<F>};
}

constexpr Conv2dKernel depthwise_kernel(Isa isa) {
  return {isa, depthwise_takes, depthwise_prepared_floats, depthwise_pack, depthwise_scratch_bytes, depthwise_run};
}

constexpr Conv2dKernel depthwise_pal_kernel(Isa isa) {
  return {isa, depthwise_takes, nullptr, nullptr, depthwise_pal_scratch_bytes, depthwise_pal_run};
}

constexpr Conv2dKernel direct_kernel(Isa isa) {
  return {isa, direct_takes, direct_prepared_floats, direct_pack, direct_scratch_bytes, direct_run};
}

constexpr Conv2dKernel direct_pal_kernel(Isa isa) {
  return {isa, direct_takes, nullptr, nullptr, direct_pal_scratch_bytes, direct_pal_run};
}

}  // namespace
}  // namespace voxpress
