// Boxed ExecuTorch kernels around the VoxPress core.
#pragma once

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

#include "prepared/packed_store.h"

namespace voxpress::pte {

using Stack = ::executorch::runtime::Span<::executorch::runtime::EValue*>;

// voxpress::conv2d.out, voxpress::conv2d_u8.out and voxpress::stats_pool.out; the order of arguments is that of the
// schemas in ops.py and conv2d_u8.py. Whatever is wrong with the arguments is recorded in the context; nothing aborts.
void conv2d_out(::executorch::runtime::KernelRuntimeContext& context, Stack stack);
void conv2d_u8_out(::executorch::runtime::KernelRuntimeContext& context, Stack stack);
void stats_pool_out(::executorch::runtime::KernelRuntimeContext& context, Stack stack);

// The packed weights of all programs of this process. The runtime does not tell ops when a program is freed, so they
// are found by content and stay until room is needed or clear() is called.
PackedStore& packed_store();

// Overrides what the environment says about low memory, for all later calls.
void set_low_memory(bool low_memory);

// Threads that a layer is run on from now on, if the environment does not say.
void set_threads(int32_t threads);

}  // namespace voxpress::pte
