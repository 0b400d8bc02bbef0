// What a .tflite file says of itself, read from its bytes: the interpreter's C interface hands no metadata out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace voxpress::harness {

// The metadata of this name in the bytes of a .tflite file, as a part of them; nothing if there is none. Throws
// std::runtime_error if the bytes are no such file: every offset is checked before it is followed.
std::optional<std::string_view> tflite_metadata(const uint8_t* data, size_t size, std::string_view name);

}  // namespace voxpress::harness
