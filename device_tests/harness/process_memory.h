// How much memory this process holds, as the system counts it.
#pragma once

#include <cstdint>

namespace voxpress::harness {

// Resident set now and at its highest since the process began; 0 where the system does not tell.
int64_t resident_bytes();
int64_t peak_resident_bytes();

}  // namespace voxpress::harness
