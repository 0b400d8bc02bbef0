// A bundle's zip as `voxpress release` writes it: stored entries, a table of them at the end, nothing else.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "files.h"

namespace voxpress::core {

// The entries of a zip by their names, as parts of its bytes. Throws InputError naming `path` for what is no such zip:
// compressed, encrypted, repeated, overlapping or cut entries, or bytes between them.
std::map<std::string, std::string_view> zip_entries(const std::string& path, std::string_view bytes);

// A zip file, mapped.
class Archive {
 public:
  // Throws InputError as zip_entries does, and for what is no file.
  explicit Archive(const std::string& path);

  // The bytes of an entry. Throws InputError if there is none of this name.
  std::string_view entry(const std::string& name) const;

  const std::map<std::string, std::string_view>& entries() const { return entries_; }

 private:
  std::string path_;
  harness::MappedFile file_;
  std::map<std::string, std::string_view> entries_;
};

}  // namespace voxpress::core
