// What an app needs of a bundle's manifest, see exporters/bundle/manifest.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/fbank.h"

namespace voxpress::core {

struct FileEntry {
  std::string sha256;
  int64_t bytes = 0;
};

struct FrontEnd {
  FbankOptions fbank;
  double min_seconds = 0;
};

struct BundledModel {
  std::string file, label, format, lowering, mode;
};

struct OperatingPoint {
  std::string name;
  double threshold = 0;
};

struct Calibration {
  std::string label, mode, score;
  std::vector<std::string> models;
  double slope = 0, intercept = 0;  // llr(s) = slope * s + intercept
  std::vector<OperatingPoint> points;
};

struct Version {
  int64_t major = 0, minor = 0, patch = 0;
};

struct Manifest {
  std::string name, version_text, primary;
  Version version;
  int64_t embedding_dim = 0;
  FrontEnd frontend;
  std::vector<BundledModel> models;
  std::vector<Calibration> calibrations;
  std::map<std::string, FileEntry> files;
};

// Three numbers with dots between them. Throws InputError naming `what`.
Version parse_version(std::string_view text, const std::string& what);
bool older(const Version& a, const Version& b);

// The manifest in the bytes of `manifest.json`. Throws InputError naming `path` if they are none of format version 1.
Manifest parse_manifest(std::string_view text, const std::string& path);

}  // namespace voxpress::core
