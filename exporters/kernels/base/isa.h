// Instruction sets that kernels are written for, and which of them this process uses.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace voxpress {

// Of one processor family in order: each has what those before it have.
enum class Isa : int32_t { kPortable, kNeon, kNeonDot, kAvx2, kAvx512, kAvx512Vnni };

// "portable", "neon", "neondot", "avx2", "avx512", "avx512vnni".
const char* isa_name(Isa isa);

// True if this build has kernels for it and the processor (and the operating system) can run them.
bool isa_available(Isa isa);

// True if what runs kernels of `level` also runs those of `isa`.
bool isa_includes(Isa level, Isa isa);

// The instruction set that kernels are chosen for: the widest one available, until select_isa says otherwise.
Isa selected_isa();

// Makes all later calls of this process use the named instruction set; "" or null goes back to the widest one. Weights
// that were packed for another one are refused by conv2d_run_packed. kBadIsa, and nothing changes, if the name is
// unknown or the machine cannot run it.
Status select_isa(const char* name);

}  // namespace voxpress
