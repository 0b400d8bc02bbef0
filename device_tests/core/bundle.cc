#include "bundle.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "errors.h"
#include "files.h"
#include "sha256.h"

namespace voxpress::core {
namespace {

namespace fs = std::filesystem;
using harness::InputError;
using harness::MappedFile;

constexpr size_t kMaxManifestBytes = size_t{1} << 24;
constexpr size_t kMaxSignatureBytes = 4096;

std::string read_small(const std::string& path, size_t most, const char* what) {
  std::error_code failure;
  if (fs::is_symlink(fs::symlink_status(path, failure))) throw InputError(path, what, "a symlink");
  const size_t bytes = harness::file_bytes(path);
  if (bytes > most) throw InputError(path, "at most " + std::to_string(most) + " bytes", std::to_string(bytes));
  const MappedFile file(path);
  return std::string(reinterpret_cast<const char*>(file.data()), file.size());
}

void check_files(const std::string& folder, const Manifest& manifest) {
  std::error_code failure;
  auto entries = fs::recursive_directory_iterator(folder, failure);
  for (; !failure && entries != fs::recursive_directory_iterator(); entries.increment(failure)) {
    const std::string path = entries->path().string();
    const std::string name = entries->path().lexically_relative(folder).generic_string();
    const fs::file_status status = entries->symlink_status(failure);
    if (failure) break;
    if (fs::is_directory(status)) {
      // Folders come before what they hold, in order: only the next name can lie in this one.
      const auto next = manifest.files.lower_bound(name + "/");
      if (next == manifest.files.end() || next->first.compare(0, name.size() + 1, name + "/") != 0) {
        throw InputError(path, "only folders that the manifest names", "an extra folder");
      }
      continue;
    }
    if (!fs::is_regular_file(status)) throw InputError(path, "a file of the bundle", "no regular file");
    if (name == kManifestName || name == kSignatureName) continue;
    const auto entry = manifest.files.find(name);
    if (entry == manifest.files.end()) {
      throw InputError(path, "only files that the manifest names", "an extra file");
    }
    const MappedFile file(path);
    check_content(path, file.data(), file.size(), entry->second);
  }
  if (failure) throw InputError(folder, "a folder that can be read", failure.message());
}

}  // namespace

void check_content(const std::string& where, const uint8_t* data, size_t bytes, const FileEntry& wanted) {
  if (static_cast<int64_t>(bytes) != wanted.bytes) {
    throw InputError(where, std::to_string(wanted.bytes) + " bytes", std::to_string(bytes));
  }
  const std::string found = harness::sha256_hex(data, bytes);
  if (found != wanted.sha256) throw InputError(where, "sha256 " + wanted.sha256, found);
}

Bundle trusted(std::string_view manifest, std::string_view signature, const std::string& path, const Trust& trust) {
  Bundle bundle;
  bundle.folder = path;
  bundle.signed_by = check_signature(manifest, signature, trust.keys, trust.verify, path);
  bundle.manifest = parse_manifest(manifest, path + "/" + kManifestName);
  if (!trust.min_version.empty() &&
      older(bundle.manifest.version, parse_version(trust.min_version, "the lowest version"))) {
    throw InputError(path, "version " + trust.min_version + " or later", bundle.manifest.version_text);
  }
  return bundle;
}

Bundle open_bundle(const std::string& folder, const Trust& trust) {
  std::error_code failure;
  if (!fs::is_directory(folder, failure)) throw InputError(folder, "a bundle's folder or zip", "no such folder");
  const std::string place = (fs::path(folder) / "").parent_path().string();
  const std::string manifest = read_small(place + "/" + kManifestName, kMaxManifestBytes, "a bundle's manifest");
  const std::string signature = read_small(place + "/" + kSignatureName, kMaxSignatureBytes, "a bundle's signature");
  Bundle bundle = trusted(manifest, signature, place, trust);
  check_files(bundle.folder, bundle.manifest);
  return bundle;
}

std::string file_in(const Bundle& bundle, const std::string& name) {
  const std::string path = bundle.folder + "/" + name;
  harness::file_bytes(path);
  return path;
}

}  // namespace voxpress::core
