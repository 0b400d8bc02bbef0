#include "tflite_model.h"

#include <dlfcn.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

#include "files.h"
#include "tflite_file.h"

namespace voxpress::harness {
namespace {

constexpr char kDelegateName[] = "libvoxpress_tflite_delegate.so";
constexpr char kManifestKey[] = "voxpress_manifest";

int64_t count_of(const Json* value, const char* key) {
  if (value == nullptr || value->kind != Json::Kind::kInteger || value->integer < 1 ||
      value->integer > std::numeric_limits<int32_t>::max()) {
    refuse(std::string("a manifest without a count ") + key);
  }
  return value->integer;
}

double number_of(const Json* value, const char* key) {
  const bool is_integer = value != nullptr && value->kind == Json::Kind::kInteger;
  const bool is_real = value != nullptr && value->kind == Json::Kind::kReal;
  const double found = is_integer ? static_cast<double>(value->integer) : is_real ? value->real : 0;
  if (!(found > 0 && found <= 1000)) refuse(std::string("a manifest without ") + key + " of up to 1000");
  return found;
}

void check_endpoint(const Endpoint& found, const char* what, int64_t least_rank, int64_t most_rank,
                    const char* expected) {
  if (!found.is_float || found.rank < least_rank || found.rank > most_rank || found.sizes[0] != 1) {
    refuse(std::string("the model's ") + what + " is no float " + expected);
  }
}

}  // namespace

void refuse(const std::string& why) { throw std::runtime_error(why); }

SharedLibrary::SharedLibrary(const std::string& path)
    : path_(path), handle_(::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr) refuse("a library that does not load (" + std::string(::dlerror()) + ")");
}

bool SharedLibrary::has(const char* name) const { return ::dlsym(handle_, name) != nullptr; }

void* SharedLibrary::find_address(const char* name) const {
  void* address = ::dlsym(handle_, name);
  if (address == nullptr) refuse(path_ + " has no " + name);
  return address;
}

DelegatePlugin::DelegatePlugin(const char* path) {
  const SharedLibrary library(path == nullptr || *path == '\0' ? kDelegateName : path);
  library.find("tflite_plugin_create_delegate", &create);
  library.find("tflite_plugin_destroy_delegate", &destroy);
  library.find("voxpress_kernels_used", &kernels_used);
  library.find("voxpress_memory_use", &memory_use);
  library.find("voxpress_register_litert_accelerator", &register_accelerator);
}

size_t TfliteModel::kernels_used(char* text, size_t size) const {
  if (plugin != nullptr) return plugin->kernels_used(text, size);
  if (size > 0) text[0] = '\0';
  return 0;
}

VoxpressMemoryUse TfliteModel::memory_use() const {
  VoxpressMemoryUse use = {};
  if (plugin != nullptr) plugin->memory_use(&use.weight_bytes, &use.scratch_bytes);
  return use;
}

void TfliteModel::check_length(int64_t length) const {
  const int64_t least = rows_of(min_frames), most = rows_of(max_frames);
  if (length < least || length > most) {
    refuse("the model takes " + std::to_string(least) + " to " + std::to_string(most) +
           (mel_bins == 0 ? " samples" : " frames"));
  }
}

void TfliteModel::check_counts(size_t inputs, size_t outputs) {
  if (inputs == 1 && outputs == 1) return;
  refuse(std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
         " outputs, not one features and one embedding");
}

void TfliteModel::take_endpoints(const Endpoint& input, const Endpoint& output) {
  check_endpoint(input, "input", 2, 3, "[1, frames, mel] or [1, samples]");
  check_endpoint(output, "output", 2, 2, "[1, embedding]");
  mel_bins = input.rank == 3 ? input.sizes[2] : 0;
  embedding_dim = output.sizes[1];
  if ((input.rank == 3 && mel_bins < 1) || embedding_dim < 1) {
    refuse("a model whose mel bins or embedding have no fixed size");
  }
}

bool TfliteModel::read_limits(const char* path) {
  const int64_t most = std::numeric_limits<int32_t>::max() / row_values();
  max_frames = most;
  const MappedFile file(path);
  const std::optional<std::string_view> manifest = tflite_metadata(file.data(), file.size(), kManifestKey);
  if (manifest) read_manifest(parse_json(*manifest));
  if (mel_bins == 0) max_frames = std::min(max_frames, (most - window_samples) / shift_samples + 1);
  if (min_frames < 1 || max_frames < min_frames || chunk_frames < 0 || chunk_frames > max_frames) {
    refuse("a manifest whose limits do not fit together");
  }
  return manifest.has_value();
}

void TfliteModel::read_manifest(const Json& manifest) {
  const Json *least = manifest.find("min_frames"), *longest = manifest.find("max_frames");
  const Json *chunks = manifest.find("long_audio"), *frontend = manifest.find("frontend");
  if (least == nullptr || longest == nullptr || frontend == nullptr) {
    refuse("a manifest without min_frames, max_frames or frontend");
  }
  min_frames = count_of(least, "min_frames");
  if (longest->kind != Json::Kind::kNull) max_frames = std::min(max_frames, count_of(longest, "max_frames"));
  // Files from before there were chunks do not speak of them.
  if (chunks != nullptr && chunks->kind != Json::Kind::kNull) {
    chunk_frames = count_of(chunks->find("chunk_frames"), "chunk_frames");
  }
  if (mel_bins != 0) return;
  // Samples of a frame and between frames, rounded down as Kaldi does; as pipeline/features/spec.py has them.
  const double per_ms = static_cast<double>(count_of(frontend->find("sample_rate_hz"), "sample_rate_hz")) * 0.001;
  window_samples = static_cast<int64_t>(per_ms * number_of(frontend->find("frame_length_ms"), "frame_length_ms"));
  shift_samples = static_cast<int64_t>(per_ms * number_of(frontend->find("frame_shift_ms"), "frame_shift_ms"));
  if (window_samples < 1 || shift_samples < 1) refuse("a manifest whose frames are shorter than a sample");
}

}  // namespace voxpress::harness
