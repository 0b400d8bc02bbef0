#include "unpack.h"

#include <filesystem>
#include <mutex>
#include <string_view>
#include <system_error>

#include "archive.h"
#include "errors.h"
#include "files.h"
#include "sha256.h"

namespace voxpress::core {
namespace {

namespace fs = std::filesystem;
using harness::InputError;

constexpr char kPartial[] = ".part";

const uint8_t* data_of(std::string_view bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

void make_folder(const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) throw InputError(folder.string(), "a folder to write to", failure.message());
}

void write_entry(const fs::path& folder, const std::string& name, std::string_view bytes) {
  const fs::path path = folder / name;
  make_folder(path.parent_path());
  harness::write_atomically(path.string(), std::string(bytes));
}

bool is_about_files(const std::string& name) { return name == kManifestName || name == kSignatureName; }

void check_contents(const Archive& archive, const std::string& path, const Manifest& manifest) {
  for (const auto& [name, bytes] : archive.entries()) {
    if (is_about_files(name)) continue;
    check_content(path + ":" + name, data_of(bytes), bytes.size(), manifest.files.at(name));
  }
}

// Renamed first, so that one that is removed in part never has the name of a whole one.
void remove_others(const fs::path& folder, const fs::path& kept) {
  std::error_code ignored;  // what cannot be removed costs room, and is tried again
  for (const fs::directory_entry& other : fs::directory_iterator(folder, ignored)) {
    if (other.path() == kept) continue;
    const fs::path leaving = other.path().string() + kPartial;
    fs::rename(other.path(), leaving, ignored);
    fs::remove_all(leaving, ignored);
  }
}

}  // namespace

std::string unpack_bundle(const std::string& path, const std::string& storage, const Trust& trust) {
  if (storage.empty()) throw InputError(path, "a folder of the app to unpack this zip into", "no storage");
  const Archive archive(path);
  const std::string manifest_text(archive.entry(kManifestName)), signature_text(archive.entry(kSignatureName));
  const Bundle bundle = trusted(manifest_text, signature_text, path, trust);
  for (const auto& [name, bytes] : archive.entries()) {
    if (is_about_files(name) || bundle.manifest.files.count(name) == 1) continue;
    throw InputError(path, "only files that the manifest names", "an extra file");
  }
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> turn(one_at_a_time);
  const fs::path place = fs::path(storage) / bundle.manifest.name;
  const std::string identity = manifest_text + signature_text;
  const fs::path folder = place / harness::sha256_hex(data_of(identity), identity.size());
  const fs::path partial = folder.string() + kPartial;
  std::error_code failure;
  if (fs::is_directory(folder, failure)) return folder.string();
  // Written beside and renamed, so that a folder of that name is whole; what a killed process left goes first.
  fs::remove_all(partial, failure);
  try {
    check_contents(archive, path, bundle.manifest);
    for (const BundledModel& model : bundle.manifest.models) {
      write_entry(partial, model.file, archive.entry(model.file));
    }
    write_entry(partial, kManifestName, manifest_text);
    write_entry(partial, kSignatureName, signature_text);
    fs::rename(partial, folder, failure);
    if (failure) throw InputError(folder.string(), "a folder to write to", failure.message());
  } catch (...) {
    fs::remove_all(partial, failure);
    throw;
  }
  remove_others(place, folder);
  return folder.string();
}

}  // namespace voxpress::core
