// Reads features and writes embeddings: safetensors files that hold F32 tensors only.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "files.h"

namespace voxpress::harness {

// A tensor inside a mapped file. `data` has no alignment.
struct StoredTensor {
  std::string name;
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;
  size_t bytes = 0;

  // `count` values from value `first` on.
  std::vector<float> values(size_t first, size_t count) const;
};

// A safetensors file. The constructor throws InputError naming the file for anything truncated, overlapping, left over,
// misshapen or not F32.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their data

  // Of the whole file.
  std::string sha256() const;

 private:
  MappedFile file_;
  std::vector<StoredTensor> tensors_;
};

// The bytes of a safetensors file with one F32 vector per name.
std::string encode_vectors(const std::vector<std::pair<std::string, std::vector<float>>>& vectors);

}  // namespace voxpress::harness
