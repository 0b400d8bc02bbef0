// voxpress.h over Speaker: handles that may outlive what they name, exceptions turned into statuses and texts.
#include "voxpress.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "command_line.h"
#include "engines.h"
#include "errors.h"
#include "speaker.h"
#include "unpack.h"

namespace {

using voxpress::core::Speaker;
using voxpress::harness::InputError;

// Open speakers by handle. Numbers are never used twice.
class Handles {
 public:
  VoxpressHandle add(std::shared_ptr<Speaker> speaker) {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_.emplace(++last_, std::move(speaker));
    return last_;
  }

  std::shared_ptr<Speaker> find(VoxpressHandle handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = open_.find(handle);
    if (found == open_.end()) throw voxpress::core::ClosedError();
    return found->second;
  }

  std::shared_ptr<Speaker> take(VoxpressHandle handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = open_.find(handle);
    if (found == open_.end()) return nullptr;
    std::shared_ptr<Speaker> speaker = std::move(found->second);
    open_.erase(found);
    return speaker;
  }

 private:
  std::mutex mutex_;
  std::map<VoxpressHandle, std::shared_ptr<Speaker>> open_;
  VoxpressHandle last_ = 0;
};

// Never destroyed: other threads may be at work while the process ends.
Handles& handles() {
  static Handles* const all = new Handles;
  return *all;
}

void tell(const char* text, VoxpressError* error) {
  std::snprintf(error->text, sizeof error->text, "%s", text);
  // File names and the runtime's words come as they are; one line is promised.
  for (char* letter = error->text; *letter != '\0'; ++letter) {
    const auto byte = static_cast<unsigned char>(*letter);
    if (byte < 0x20 || byte > 0x7E) *letter = '?';
  }
}

template <typename Call>
VoxpressStatus guarded(VoxpressError* error, Call call) {
  *error = {};
  try {
    call();
    return VOXPRESS_OK;
  } catch (const InputError& refused) {
    tell(refused.what(), error);
    return VOXPRESS_BAD_INPUT;
  } catch (const voxpress::core::ClosedError& closed) {
    tell(closed.what(), error);
    return VOXPRESS_CLOSED;
  } catch (const std::exception& failure) {
    tell(failure.what(), error);
    return VOXPRESS_FAILED;
  }
}

std::string or_empty(const char* text) { return text == nullptr ? "" : text; }

const char* given(const char* text, const char* what) {
  if (text == nullptr || *text == '\0') throw InputError(what, "a text", "none");
  return text;
}

template <size_t kSize>
void copy(const std::string& text, char (&target)[kSize]) {
  std::snprintf(target, kSize, "%s", text.c_str());
}

voxpress::core::Trust trust_of(const VoxpressOptions& options) {
  const VoxpressVerifySignature verify = options.verify_signature;
  if (verify == nullptr) throw InputError("verify_signature", "a function that verifies signatures", "none");
  voxpress::core::Trust trust;
  trust.keys = voxpress::core::parse_public_keys(given(options.public_keys, "public_keys"));
  trust.min_version = or_empty(options.min_version);
  trust.verify = [verify, context = options.verify_context](const auto& key, const std::string& message,
                                                            const auto& signature) {
    return verify(context, key.data(), reinterpret_cast<const uint8_t*>(message.data()), message.size(),
                  signature.data()) != 0;
  };
  return trust;
}

voxpress::core::SpeakerOptions speaker_options(const VoxpressOptions& options) {
  voxpress::core::SpeakerOptions wanted;
  wanted.format = or_empty(options.format);
  wanted.label = or_empty(options.label);
  wanted.mode = or_empty(options.mode);
  wanted.operating_point = or_empty(options.operating_point);
  wanted.runtime_library = or_empty(options.runtime_library);
  wanted.delegate_library = or_empty(options.delegate_library);
  if (options.threads < 0 || options.threads > 256) {
    throw InputError("threads", "0 to 256", std::to_string(options.threads));
  }
  wanted.threads = options.threads == 0 ? 1 : options.threads;
  return wanted;
}

// The engine for the file that follows `--model`.
const VoxpressEngineApi& engine_for(const std::vector<std::string>& arguments) {
  std::string formats;
  const auto option = std::find(arguments.begin(), arguments.end(), "--model");
  const std::string model = option == arguments.end() || option + 1 == arguments.end() ? "" : option[1];
  const std::string suffix = model.substr(std::min(model.size(), model.find_last_of('.') + 1));
  for (const auto& engine : voxpress::core::linked_engines()) {
    if (suffix == engine.format) return *engine.api;
    formats += (formats.empty() ? "." : " or .") + std::string(engine.format);
  }
  throw InputError("--model", "a file of " + formats, model.empty() ? "none" : model);
}

}  // namespace

VoxpressHandle voxpress_open(const VoxpressOptions* options, VoxpressError* error) {
  VoxpressHandle handle = 0;
  guarded(error, [&] {
    const voxpress::core::Trust trust = trust_of(*options);
    const std::string given_bundle = given(options->bundle, "bundle");
    const std::string folder = std::filesystem::is_regular_file(given_bundle)
                                   ? voxpress::core::unpack_bundle(given_bundle, or_empty(options->storage), trust)
                                   : given_bundle;
    voxpress::core::Bundle bundle = voxpress::core::open_bundle(folder, trust);
    handle = handles().add(std::make_shared<Speaker>(std::move(bundle), speaker_options(*options)));
  });
  return handle;
}

void voxpress_close(VoxpressHandle handle) {
  const std::shared_ptr<Speaker> speaker = handles().take(handle);
  if (speaker != nullptr) speaker->close();
}

VoxpressStatus voxpress_info(VoxpressHandle handle, VoxpressInfo* info, VoxpressError* error) {
  return guarded(error, [&] {
    const std::shared_ptr<Speaker> speaker = handles().find(handle);
    const auto& manifest = speaker->bundle().manifest;
    *info = {};
    copy(manifest.name, info->name);
    copy(manifest.version_text, info->version);
    copy(speaker->bundle().signed_by, info->signed_by);
    copy(speaker->model().file, info->model);
    copy(speaker->engine().engine, info->engine);
    copy(speaker->engine().runtime_version, info->runtime);
    copy(speaker->operating_point().name, info->operating_point);
    info->threshold = speaker->operating_point().threshold;
    info->sample_rate_hz = manifest.frontend.fbank.sample_rate_hz;
    info->embedding_dim = static_cast<int32_t>(manifest.embedding_dim);
    info->min_samples = speaker->min_samples();
    info->max_samples = speaker->max_samples();
    info->voice_bytes = voxpress::core::voice_bytes(manifest.embedding_dim);
  });
}

VoxpressStatus voxpress_embed(VoxpressHandle handle, VoxpressSamples samples, float* embedding, VoxpressError* error) {
  return guarded(error, [&] {
    const std::vector<float> found = handles().find(handle)->embed(samples.data, samples.count);
    std::copy(found.begin(), found.end(), embedding);
  });
}

VoxpressStatus voxpress_enroll(VoxpressHandle handle, const VoxpressSamples* utterances, size_t count, uint8_t* voice,
                               VoxpressError* error) {
  return guarded(error, [&] {
    std::vector<std::pair<const float*, size_t>> all;
    for (size_t i = 0; i < count; ++i) all.emplace_back(utterances[i].data, utterances[i].count);
    voxpress::core::write_voice(handles().find(handle)->enroll(all), voice);
  });
}

VoxpressStatus voxpress_verify(VoxpressHandle handle, const uint8_t* voice, size_t voice_bytes, VoxpressSamples samples,
                               VoxpressDecision* decision, VoxpressError* error) {
  return guarded(error, [&] {
    const std::shared_ptr<Speaker> speaker = handles().find(handle);
    const auto found = speaker->verify(voxpress::core::read_voice(voice, voice_bytes), samples.data, samples.count);
    *decision = {found.score, found.llr, found.accepted ? 1 : 0};
  });
}

int32_t voxpress_benchmark(const char* const* arguments, size_t count, VoxpressError* error) {
  voxpress::harness::CommandResult result = {1, ""};
  const VoxpressStatus status = guarded(error, [&] {
    const std::vector<std::string> words(arguments, arguments + count);
    result = voxpress::harness::run_command(engine_for(words), words);
  });
  if (status == VOXPRESS_BAD_INPUT) return 2;
  if (status == VOXPRESS_OK) tell(result.text.c_str(), error);
  return result.exit_code;
}
