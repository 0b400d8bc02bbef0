// The VoxPress ops, for ExecuTorch.
#pragma once

#include <cstddef>

#define VOXPRESS_PTE_API extern "C" __attribute__((visibility("default")))

// Registers voxpress::conv2d.out and voxpress::stats_pool.out with the ExecuTorch runtime. To be called once before a
// program is loaded; calling it again, or from a second library, does nothing. Returns the number of ops it registered.
VOXPRESS_PTE_API int voxpress_register_ops(void);

// Writes the names of the kernels that have run in this process, as text; see base/usage.h.
VOXPRESS_PTE_API size_t voxpress_kernels_used(char* text, size_t size);
