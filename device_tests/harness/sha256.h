// SHA-256 (FIPS 180-4), to name a file by its content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace voxpress::harness {

// 64 hex digits.
std::string sha256_hex(const uint8_t* data, size_t bytes);

}  // namespace voxpress::harness
