// Instruction sets that kernels are written for, and which of them this process uses.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace voxpress {

enum class Isa : int32_t { kPortable, kNeon, kAvx2, kAvx512 };

// "portable", "neon", "avx2", "avx512".
const char* isa_name(Isa isa);

// True if this build has kernels for it and the processor (and the operating system) can run them.
bool isa_available(Isa isa);

// The instruction set that kernels are chosen for: the widest one available, until select_isa says otherwise.
Isa selected_isa();

// Makes all later calls of this process use the named instruction set; "" or null goes back to the widest one. Weights
// that were packed for another one are refused by conv2d_run_packed. kBadIsa, and nothing changes, if the name is
// unknown or the machine cannot run it.
Status select_isa(const char* name);

}  // namespace voxpress
