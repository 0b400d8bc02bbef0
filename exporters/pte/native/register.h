// The VoxPress ops, for ExecuTorch.
#pragma once

#include <cstddef>

#define VOXPRESS_PTE_API extern "C" __attribute__((visibility("default")))

// Registers the `.out` variants of voxpress::conv2d, voxpress::fbank and voxpress::stats_pool with the ExecuTorch
// runtime. To be called once before a program is loaded; calling it again, or from a second library, does nothing.
// Returns the number of ops it registered.
VOXPRESS_PTE_API int voxpress_register_ops(void);

// Frees the packed weights that are kept for programs, at most 512 MiB. Harmless at any time: what is needed again is
// packed again. To be called when a program was unloaded and its memory is wanted back now. Returns the bytes
// forgotten.
VOXPRESS_PTE_API size_t voxpress_release_packed(void);

// Writes the names of the kernels that have run in this process, as text; see base/usage.h.
VOXPRESS_PTE_API size_t voxpress_kernels_used(char* text, size_t size);
