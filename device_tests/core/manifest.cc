#include "manifest.h"

#include <charconv>
#include <cmath>
#include <tuple>

#include "errors.h"
#include "json.h"

namespace voxpress::core {
namespace {

using harness::InputError;
using harness::Json;
using harness::JsonError;

constexpr size_t kMaxPathBytes = 240;
constexpr int64_t kMaxEmbedding = 1 << 16;

const Json& member(const Json& object, const char* key) {
  const Json* found = object.find(key);
  if (found == nullptr) throw JsonError(std::string("no ") + key);
  return *found;
}

const std::string& text(const Json& object, const char* key) {
  const Json& found = member(object, key);
  if (found.kind != Json::Kind::kString) throw JsonError(std::string(key) + " that is no text");
  return found.string;
}

int64_t integer(const Json& object, const char* key, int64_t least, int64_t most) {
  const Json& found = member(object, key);
  if (found.kind != Json::Kind::kInteger || found.integer < least || found.integer > most) {
    throw JsonError(std::string(key) + " that is no integer of " + std::to_string(least) + " to " +
                    std::to_string(most));
  }
  return found.integer;
}

double real(const Json& object, const char* key) {
  const Json& found = member(object, key);
  if (found.kind == Json::Kind::kInteger) return static_cast<double>(found.integer);
  if (found.kind != Json::Kind::kReal) throw JsonError(std::string(key) + " that is no number");
  return found.real;
}

bool boolean(const Json& object, const char* key) {
  const Json& found = member(object, key);
  if (found.kind != Json::Kind::kBool) throw JsonError(std::string(key) + " that is neither true nor false");
  return found.boolean;
}

const std::vector<Json>& list(const Json& object, const char* key) {
  const Json& found = member(object, key);
  if (found.kind != Json::Kind::kArray) throw JsonError(std::string(key) + " that is no list");
  return found.array;
}

// Plain names with slashes between them, none of which begins with a dot: no way out of the folder.
bool plain_path(const std::string& path) {
  if (path.empty() || path.size() > kMaxPathBytes) return false;
  bool begins = true;
  for (const char c : path) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!letter && (begins || (c != '.' && c != '-' && c != '/'))) return false;
    begins = c == '/';
  }
  return !begins;
}

// A short name of letters, digits and a few signs, as for bundles and labels.
const std::string& name(const Json& object, const char* key, size_t most) {
  const std::string& found = text(object, key);
  bool plain = !found.empty() && found.size() <= most;
  for (const char c : found) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    plain = plain && (letter || std::string_view("_.-+%").find(c) != std::string_view::npos);
  }
  if (!plain) throw JsonError(std::string(key) + " that is no name of at most " + std::to_string(most) + " signs");
  return found;
}

FbankWindow window_of(const std::string& word) {
  if (word == "hamming") return FbankWindow::kHamming;
  if (word == "povey") return FbankWindow::kPovey;
  if (word == "hanning") return FbankWindow::kHanning;
  throw JsonError("a window " + word);
}

// Lengths are rounded down in double, in this order, as pipeline/features/spec.py and Kaldi do.
int32_t samples_of(int32_t rate_hz, double milliseconds) {
  const double samples = rate_hz * 0.001 * milliseconds;
  if (!(samples >= 1 && samples <= rate_hz)) throw JsonError("a frame length or shift that is not up to a second");
  return static_cast<int32_t>(samples);
}

FrontEnd read_frontend(const Json& spec) {
  FrontEnd frontend;
  FbankOptions& fbank = frontend.fbank;
  fbank.sample_rate_hz = static_cast<int32_t>(integer(spec, "sample_rate_hz", 8000, 48000));
  fbank.window_samples = samples_of(fbank.sample_rate_hz, real(spec, "frame_length_ms"));
  fbank.shift_samples = samples_of(fbank.sample_rate_hz, real(spec, "frame_shift_ms"));
  fbank.num_mel_bins = static_cast<int32_t>(integer(spec, "num_mel_bins", 1, 256));
  fbank.sample_scale = static_cast<float>(real(spec, "sample_scale"));
  fbank.preemphasis = static_cast<float>(real(spec, "preemphasis"));
  fbank.low_hz = static_cast<float>(real(spec, "low_hz"));
  const double high_hz = real(spec, "high_hz");
  fbank.high_hz = static_cast<float>(high_hz > 0 ? high_hz : fbank.sample_rate_hz / 2.0 + high_hz);
  fbank.window = window_of(text(spec, "window"));
  fbank.round_to_power_of_two = boolean(spec, "round_to_power_of_two");
  fbank.remove_dc_offset = boolean(spec, "remove_dc_offset");
  fbank.use_power = boolean(spec, "use_power");
  fbank.use_log = boolean(spec, "use_log");
  if (!boolean(spec, "snip_edges") || boolean(spec, "use_energy") || real(spec, "dither") != 0 ||
      text(spec, "mean_normalise") != "utterance") {
    throw JsonError("a front end with options that this build does not have");
  }
  frontend.min_seconds = real(spec, "min_seconds");
  if (!(frontend.min_seconds > 0 && frontend.min_seconds < 3600)) throw JsonError("min_seconds out of range");
  if (fbank_check(fbank) != Status::kOk) throw JsonError("a front end out of range");
  return frontend;
}

std::string path_in(const Json& value) {
  if (value.kind != Json::Kind::kString || !plain_path(value.string)) {
    throw JsonError("a path that does not lie in the bundle");
  }
  return value.string;
}

Calibration read_calibration(const Json& entry) {
  Calibration calibration;
  calibration.label = name(entry, "label", 40);
  calibration.mode = text(entry, "mode");
  calibration.score = text(entry, "score");
  for (const Json& file : list(entry, "models")) calibration.models.push_back(path_in(file));
  const Json& llr = member(entry, "llr");
  calibration.slope = real(llr, "slope");
  calibration.intercept = real(llr, "intercept");
  for (const Json& point : list(entry, "thresholds")) {
    calibration.points.push_back({name(point, "name", 40), real(point, "threshold")});
  }
  return calibration;
}

std::map<std::string, FileEntry> read_files(const Json& files) {
  if (files.kind != Json::Kind::kObject) throw JsonError("files that are no object");
  std::map<std::string, FileEntry> entries;
  for (const auto& [path, entry] : files.object) {
    if (!plain_path(path)) throw JsonError("a path that does not lie in the bundle");
    FileEntry file;
    file.sha256 = text(entry, "sha256");
    if (file.sha256.size() != 64 || file.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
      throw JsonError("a sha256 that is not 64 hex digits");
    }
    file.bytes = integer(entry, "bytes", 0, int64_t{1} << 32);
    entries.emplace(path, std::move(file));
  }
  return entries;
}

Manifest read_manifest(const Json& root) {
  if (root.kind != Json::Kind::kObject) throw JsonError("no object");
  if (text(root, "format") != "voxpress-bundle") throw JsonError("another format");
  if (const int64_t version = integer(root, "format_version", 0, 1 << 30); version != 1) {
    throw JsonError("format version " + std::to_string(version) + "; this build reads 1");
  }
  Manifest manifest;
  manifest.name = name(root, "name", 64);
  manifest.version_text = text(root, "version");
  manifest.version = parse_version(manifest.version_text, "version");
  manifest.primary = name(root, "primary", 40);
  manifest.embedding_dim = integer(root, "embedding_dim", 1, kMaxEmbedding);
  manifest.frontend = read_frontend(member(root, "frontend"));
  manifest.files = read_files(member(root, "files"));
  for (const Json& entry : list(root, "models")) {
    manifest.models.push_back({path_in(member(entry, "file")), name(entry, "label", 40), text(entry, "format"),
                               text(entry, "lowering"), text(entry, "mode")});
    if (manifest.files.count(manifest.models.back().file) == 0) throw JsonError("a model that is not among the files");
  }
  for (const Json& entry : list(root, "calibrations")) manifest.calibrations.push_back(read_calibration(entry));
  return manifest;
}

}  // namespace

Version parse_version(std::string_view text, const std::string& what) {
  int64_t numbers[3] = {};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  bool whole = true;
  for (int i = 0; i < 3 && whole; ++i) {
    if (i > 0) whole = at < end && *at++ == '.';
    const char* const begin = at;
    while (at < end && *at >= '0' && *at <= '9') ++at;
    const auto digits = at - begin;
    whole = whole && digits >= 1 && digits <= 9 && (*begin != '0' || digits == 1);
    if (whole) std::from_chars(begin, at, numbers[i]);
  }
  if (!whole || at != end) throw InputError(what, "a version such as 1.2.0", std::string(text));
  return {numbers[0], numbers[1], numbers[2]};
}

bool older(const Version& a, const Version& b) {
  return std::tie(a.major, a.minor, a.patch) < std::tie(b.major, b.minor, b.patch);
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  try {
    return read_manifest(harness::parse_json(text));
  } catch (const JsonError& error) {
    throw InputError(path, "a bundle's manifest", error.what());
  } catch (const InputError& error) {
    throw InputError(path, "a bundle's manifest", error.what());
  }
}

}  // namespace voxpress::core
