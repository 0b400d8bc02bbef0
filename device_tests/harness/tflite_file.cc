#include "tflite_file.h"

#include <cstring>
#include <stdexcept>

namespace voxpress::harness {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "flatbuffers are read as they lie in memory");

constexpr char kIdentifier[] = "TFL3";
// Fields of TFLite's schema by their number: of Model, of Metadata, of Buffer.
constexpr size_t kModelBuffers = 4, kModelMetadata = 6;
constexpr size_t kMetadataName = 0, kMetadataBuffer = 1;
constexpr size_t kBufferData = 0;

// A flatbuffer: tables hold their fields at places that a table of offsets names; strings and vectors begin with their
// length, and everything long is found through an offset from where that is written.
class FlatBuffer {
 public:
  FlatBuffer(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  template <typename Number>
  Number number(size_t at) const {
    if (at > size_ || size_ - at < sizeof(Number)) throw std::runtime_error("a .tflite file that is cut or damaged");
    Number value;
    std::memcpy(&value, data_ + at, sizeof value);
    return value;
  }

  size_t follow(size_t at) const { return at + number<uint32_t>(at); }

  // Where a table holds a field; 0 if it does not.
  size_t field(size_t table, size_t index) const {
    const size_t offsets = table - static_cast<size_t>(static_cast<int64_t>(number<int32_t>(table)));
    const size_t entry = 4 + 2 * index;
    if (entry + 2 > number<uint16_t>(offsets)) return 0;
    const uint16_t offset = number<uint16_t>(offsets + entry);
    return offset == 0 ? 0 : table + offset;
  }

  // The bytes of a string or of a vector of bytes.
  std::string_view bytes(size_t vector) const {
    const auto count = number<uint32_t>(vector);
    if (count > size_ - vector - 4) throw std::runtime_error("a .tflite file that is cut or damaged");
    return {reinterpret_cast<const char*>(data_) + vector + 4, count};
  }

  // A table of a vector of tables.
  size_t table(size_t vector, uint32_t index) const {
    if (index >= number<uint32_t>(vector)) throw std::runtime_error("a .tflite file that is cut or damaged");
    return follow(vector + 4 + 4 * size_t{index});
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace

std::optional<std::string_view> tflite_metadata(const uint8_t* data, size_t size, std::string_view name) {
  if (size < 8 || std::memcmp(data + 4, kIdentifier, 4) != 0) throw std::runtime_error("no .tflite file");
  const FlatBuffer file(data, size);
  const size_t model = file.follow(0);
  const size_t metadata = file.field(model, kModelMetadata), buffers = file.field(model, kModelBuffers);
  if (metadata == 0 || buffers == 0) return std::nullopt;
  const size_t entries = file.follow(metadata);
  for (uint32_t i = 0; i < file.number<uint32_t>(entries); ++i) {
    const size_t entry = file.table(entries, i);
    const size_t key = file.field(entry, kMetadataName), buffer = file.field(entry, kMetadataBuffer);
    if (key == 0 || file.bytes(file.follow(key)) != name) continue;
    // A field that is left out has its default, here the first buffer.
    const uint32_t index = buffer == 0 ? 0 : file.number<uint32_t>(buffer);
    const size_t content = file.field(file.table(file.follow(buffers), index), kBufferData);
    if (content == 0) return std::nullopt;
    return file.bytes(file.follow(content));
  }
  return std::nullopt;
}

}  // namespace voxpress::harness
