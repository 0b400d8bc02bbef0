// A bundle's folder, read with suspicion: the signature first, then every file that is there against the manifest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "manifest.h"
#include "signature.h"

namespace voxpress::core {

struct Trust {
  std::vector<PublicKey> keys;
  Verifier verify;
  std::string min_version;  // "": any
};

struct Bundle {
  std::string folder;
  Manifest manifest;
  std::string signed_by;  // id of the key whose signature was verified
};

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kSignatureName[] = "signature.json";

// Throws InputError naming `where` unless bytes are what the manifest says of a file.
void check_content(const std::string& where, const uint8_t* data, size_t bytes, const FileEntry& wanted);

// A bundle by the bytes of its manifest and its signature; nothing of the manifest is read before its signature holds.
// Throws InputError naming `path` for a bad signature, no manifest, an old version.
Bundle trusted(std::string_view manifest, std::string_view signature, const std::string& path, const Trust& trust);

// Reads and checks a bundle. Files that the manifest names may be missing, so that an app ships only what it runs; what
// is there must be the manifest's, byte for byte, and nothing else may be. Throws InputError naming the file for a bad
// signature, an old version, a changed, extra or linked file.
Bundle open_bundle(const std::string& folder, const Trust& trust);

// Path of a file of the bundle that must be there. Throws InputError if it is not.
std::string file_in(const Bundle& bundle, const std::string& name);

}  // namespace voxpress::core
