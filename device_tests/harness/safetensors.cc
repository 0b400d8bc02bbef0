#include "safetensors.h"

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "json.h"
#include "sha256.h"

namespace voxpress::harness {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr char kMetadata[] = "__metadata__";

uint64_t read_little_endian(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// Product of the shape times four; false if it overflows or a dimension is negative.
bool float_bytes(const std::vector<int64_t>& shape, uint64_t* bytes) {
  uint64_t total = sizeof(float);
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(total, static_cast<uint64_t>(size), &total)) return false;
  }
  *bytes = total;
  return true;
}

std::vector<int64_t> integers(const Json* list, const char* key) {
  if (list == nullptr || list->kind != Json::Kind::kArray) throw JsonError(std::string("no list ") + key);
  std::vector<int64_t> values;
  for (const Json& item : list->array) {
    if (item.kind != Json::Kind::kInteger || item.integer < 0) throw JsonError(std::string("no counts in ") + key);
    values.push_back(item.integer);
  }
  return values;
}

StoredTensor read_entry(const std::string& name, const Json& entry, const uint8_t* data, uint64_t data_bytes) {
  const auto refuse = [&name](const std::string& why) { throw JsonError("tensor " + name + ": " + why); };
  const Json* dtype = entry.find("dtype");
  if (entry.object.size() != 3 || dtype == nullptr) refuse("not the keys dtype, shape and data_offsets");
  if (dtype->string != "F32") refuse("dtype " + dtype->string + " where F32 is wanted");
  StoredTensor tensor;
  tensor.name = name;
  tensor.shape = integers(entry.find("shape"), "shape");
  const std::vector<int64_t> offsets = integers(entry.find("data_offsets"), "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) refuse("data_offsets that are no range");
  const auto begin = static_cast<uint64_t>(offsets[0]), end = static_cast<uint64_t>(offsets[1]);
  if (end > data_bytes) {
    refuse("data up to byte " + std::to_string(end) + " of the " + std::to_string(data_bytes) + " that there are");
  }
  uint64_t bytes = 0;
  if (!float_bytes(tensor.shape, &bytes) || bytes != end - begin) refuse("a shape that its data does not fill");
  tensor.data = data + begin;
  tensor.bytes = static_cast<size_t>(bytes);
  return tensor;
}

std::vector<StoredTensor> read_tensors(const uint8_t* bytes, size_t size) {
  if (size < kLengthBytes) throw JsonError("only " + std::to_string(size) + " bytes");
  const uint64_t header_bytes = read_little_endian(bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > size - kLengthBytes) {
    throw JsonError("a header of " + std::to_string(header_bytes) + " bytes in a file of " + std::to_string(size));
  }
  const auto* text = reinterpret_cast<const char*>(bytes + kLengthBytes);
  const Json header = parse_json(std::string_view(text, static_cast<size_t>(header_bytes)));
  if (header.kind != Json::Kind::kObject) throw JsonError("a header that is no object");
  const uint8_t* data = bytes + kLengthBytes + header_bytes;
  const uint64_t data_bytes = size - kLengthBytes - header_bytes;
  std::vector<StoredTensor> tensors;
  for (const auto& [name, entry] : header.object) {
    if (name != kMetadata) tensors.push_back(read_entry(name, entry, data, data_bytes));
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const StoredTensor& a, const StoredTensor& b) { return a.data < b.data; });
  uint64_t expected = 0;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.data != data + expected)
      throw JsonError("tensor " + tensor.name + ": data that overlaps or leaves a hole");
    expected += tensor.bytes;
  }
  if (expected != data_bytes) throw JsonError(std::to_string(data_bytes - expected) + " bytes that no tensor owns");
  return tensors;
}

}  // namespace

std::vector<float> StoredTensor::values(size_t first, size_t count) const {
  std::vector<float> copied(count);
  std::memcpy(copied.data(), data + first * sizeof(float), count * sizeof(float));
  return copied;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  try {
    tensors_ = read_tensors(file_.data(), file_.size());
  } catch (const JsonError& error) {
    throw InputError(path, "a whole safetensors file of F32 tensors", error.what());
  }
}

std::string SafetensorsFile::sha256() const { return sha256_hex(file_.data(), file_.size()); }

std::string encode_vectors(const std::vector<std::pair<std::string, std::vector<float>>>& vectors) {
  std::string header = "{";
  size_t offset = 0;
  for (const auto& [name, values] : vectors) {
    const size_t end = offset + values.size() * sizeof(float);
    if (header.size() > 1) header += ",";
    header += quote_json(name) + ":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(values.size()) +
              "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');  // the format wants the data on an 8-byte boundary

  std::string bytes;
  bytes.reserve(kLengthBytes + header.size() + offset);
  for (size_t i = 0; i < kLengthBytes; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  bytes += header;
  for (const auto& [name, values] : vectors) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  return bytes;
}

}  // namespace voxpress::harness
