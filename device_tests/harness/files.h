// Files read through a mapping and written whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace voxpress::harness {

// A whole file, mapped read-only. The constructor throws InputError if it cannot be read.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Size of a regular file. Throws InputError if there is none.
size_t file_bytes(const std::string& path);

// Writes beside `path` and renames into place. Throws InputError if the disk does not take it.
void write_atomically(const std::string& path, const std::string& bytes);

}  // namespace voxpress::harness
