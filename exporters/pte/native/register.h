// The VoxPress ops, for ExecuTorch.
#pragma once

#include <cstddef>

#define VOXPRESS_PTE_API extern "C" __attribute__((visibility("default")))

// Registers voxpress::conv2d.out, conv2d_u8.out, fbank.out and stats_pool.out with the ExecuTorch runtime. To be called
// once before a program is loaded; calling it again, or from a second library, does nothing. Returns the number of ops
// it registered.
VOXPRESS_PTE_API int voxpress_register_ops(void);

// Frees the packed weights that are kept for programs, at most 512 MiB. Harmless at any time: what is needed again is
// packed again. To be called when a program was unloaded and its memory is wanted back now. Returns the bytes
// forgotten.
VOXPRESS_PTE_API size_t voxpress_release_packed(void);

// Whether weights are kept packed as they lie in the file and expanded at each call (not 0), which saves their memory
// and takes time, or are expanded once (0). Without it the environment says so: VOXPRESS_LOW_MEMORY=1. Counts for all
// calls that begin later; what is already expanded stays until voxpress_release_packed.
VOXPRESS_PTE_API void voxpress_set_low_memory(int low_memory);

// How many threads a layer may use; 1 until this is called. The runtime does not tell ops how many its own pool has.
// VOXPRESS_THREADS in the environment counts for more.
VOXPRESS_PTE_API void voxpress_set_threads(int threads);

// Bytes of packed weights that are kept now, and the most scratch that a layer was given so far; see
// prepared/memory_use.h.
VOXPRESS_PTE_API void voxpress_memory_use(size_t* weight_bytes, size_t* scratch_bytes);

// Writes the names of the kernels that have run in this process, as text; see base/usage.h.
VOXPRESS_PTE_API size_t voxpress_kernels_used(char* text, size_t size);
