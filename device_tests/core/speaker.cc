#include "speaker.h"

#include <algorithm>
#include <cmath>
#include <shared_mutex>
#include <utility>

#include "errors.h"
#include "frontend/chunks.h"

namespace voxpress::core {
namespace {

using harness::InputError;

constexpr char kDefaultPoint[] = "eer";

// Opening and closing set up what all models of a process share (thread pools, accelerators); running uses it.
std::shared_mutex& runtimes() {
  static std::shared_mutex mutex;
  return mutex;
}

std::string or_default(const std::string& wanted, const std::string& usual) { return wanted.empty() ? usual : wanted; }

struct Choice {
  const LinkedEngine* engine;
  BundledModel model;
};

Choice choose(const Bundle& bundle, const SpeakerOptions& options) {
  const std::string label = or_default(options.label, bundle.manifest.primary);
  const std::string mode = or_default(options.mode, "exact");
  for (const LinkedEngine& engine : linked_engines()) {
    if (!options.format.empty() && options.format != engine.format) continue;
    for (const BundledModel& model : bundle.manifest.models) {
      if (model.label == label && model.mode == mode && model.format == engine.format && model.lowering == "voxpress") {
        return {&engine, model};
      }
    }
  }
  std::string formats;
  for (const LinkedEngine& engine : linked_engines())
    formats += (formats.empty() ? "." : ", .") + std::string(engine.format);
  throw InputError(bundle.folder,
                   "a model of " + label + " in mode " + mode + " as " +
                       (options.format.empty() ? formats : "." + options.format) + ", of what this build runs (" +
                       formats + ")",
                   "none");
}

Calibration calibration_of(const Bundle& bundle, const BundledModel& model) {
  for (const Calibration& calibration : bundle.manifest.calibrations) {
    const auto& models = calibration.models;
    if (calibration.label != model.label || calibration.mode != model.mode ||
        std::find(models.begin(), models.end(), model.file) == models.end()) {
      continue;
    }
    if (calibration.score != "cosine") {
      throw InputError(bundle.folder, "a calibration of cosine scores", "one of " + calibration.score);
    }
    return calibration;
  }
  throw InputError(bundle.folder, "a calibration of " + model.file, "none");
}

OperatingPoint point_of(const Bundle& bundle, const Calibration& calibration, const std::string& name) {
  std::string known;
  for (const OperatingPoint& point : calibration.points) {
    if (point.name == name) return point;
    known += (known.empty() ? "" : ", ") + point.name;
  }
  throw InputError(bundle.folder, "a threshold named " + name, known.empty() ? "none" : known);
}

}  // namespace

void Speaker::CloseEngine::operator()(VoxpressEngine* engine) const {
  const std::unique_lock<std::shared_mutex> alone(runtimes());
  linked->api->close(engine);
  if (linked->release_packed != nullptr) linked->release_packed();
}

Speaker::Speaker(Bundle bundle, const SpeakerOptions& options)
    : bundle_(std::move(bundle)), features_(bundle_.manifest.frontend.fbank) {
  const Choice choice = choose(bundle_, options);
  linked_ = choice.engine;
  model_ = choice.model;
  calibration_ = calibration_of(bundle_, model_);
  point_ = point_of(bundle_, calibration_, or_default(options.operating_point, kDefaultPoint));
  const std::string path = file_in(bundle_, model_.file);
  VoxpressEngineRequest request = {};
  request.model_path = path.c_str();
  request.threads = options.threads;
  request.runtime_library = options.runtime_library.c_str();
  request.delegate_library = options.delegate_library.c_str();
  VoxpressEngineError error = {};
  {
    const std::unique_lock<std::shared_mutex> alone(runtimes());
    engine_ = {linked_->api->open(&request, &error), CloseEngine{linked_}};
  }
  if (engine_ == nullptr) throw InputError(path, "a model that the engine can load", error.text);
  linked_->api->describe(engine_.get(), &info_);
  const int64_t mel = bundle_.manifest.frontend.fbank.num_mel_bins;
  if (info_.embedding_dim != bundle_.manifest.embedding_dim || (info_.mel_bins != 0 && info_.mel_bins != mel)) {
    throw InputError(path,
                     "a model of " + std::to_string(mel) + " mel bins and embeddings of " +
                         std::to_string(bundle_.manifest.embedding_dim),
                     std::to_string(info_.mel_bins) + " and " + std::to_string(info_.embedding_dim));
  }
}

Speaker::~Speaker() = default;

VoiceSpace Speaker::space() const {
  const Manifest& manifest = bundle_.manifest;
  return {manifest.name, model_.label, manifest.version.major, manifest.embedding_dim};
}

int64_t Speaker::samples_of(int64_t frames) const {
  const FbankOptions& fbank = bundle_.manifest.frontend.fbank;
  return (frames - 1) * fbank.shift_samples + fbank.window_samples;
}

int64_t Speaker::min_samples() const {
  const FrontEnd& frontend = bundle_.manifest.frontend;
  const auto seconds = static_cast<int64_t>(std::llround(frontend.min_seconds * frontend.fbank.sample_rate_hz));
  return std::max(seconds, samples_of(info_.min_frames));
}

// The last sample that does not begin another frame.
int64_t Speaker::max_samples() const {
  constexpr int64_t kNoLimit = int64_t{1} << 31;
  if (info_.chunk_frames > 0 || info_.max_frames >= kNoLimit) return 0;
  return samples_of(info_.max_frames) + bundle_.manifest.frontend.fbank.shift_samples - 1;
}

void Speaker::embed_once(const float* samples, int64_t count, std::vector<float>* embedding) {
  const bool takes_samples = info_.mel_bins == 0;
  const float* input = takes_samples ? samples : features_.of(samples, count).data();
  const int64_t length = takes_samples ? count : fbank_frames(bundle_.manifest.frontend.fbank, count);
  VoxpressEngineError error = {};
  const std::shared_lock<std::shared_mutex> running(runtimes());
  if (linked_->api->run(engine_.get(), input, length, embedding->data(), &error) != 0) {
    throw std::runtime_error(model_.file + ": " + error.text);
  }
}

std::vector<float> Speaker::embed(const float* samples, size_t count) {
  const int64_t length = static_cast<int64_t>(count), least = min_samples(), most = max_samples();
  if (length < least || (most > 0 && length > most)) {
    const std::string range =
        most > 0 ? std::to_string(least) + " to " + std::to_string(most) : "at least " + std::to_string(least);
    throw InputError("utterance", range + " samples", std::to_string(count));
  }
  if (!std::all_of(samples, samples + count, [](float sample) { return std::isfinite(sample); })) {
    throw InputError("utterance", "samples that are numbers", "NaN or infinite");
  }
  const FbankOptions& fbank = bundle_.manifest.frontend.fbank;
  std::vector<float> embedding(static_cast<size_t>(info_.embedding_dim));
  const std::lock_guard<std::mutex> turn(turn_);
  if (closed_) throw ClosedError();
  // In chunks, of which the features of one at a time are in memory, if the model says so.
  const int64_t frames = fbank_frames(fbank, length);
  const int64_t chunks = chunk_count(frames, info_.chunk_frames);
  if (chunks <= 1) {
    embed_once(samples, length, &embedding);
    return embedding;
  }
  std::vector<double> sum(embedding.size());
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t first = chunk_start(frames, info_.chunk_frames, i) * fbank.shift_samples;
    embed_once(samples + first, samples_of(info_.chunk_frames), &embedding);
    chunk_add(embedding.data(), info_.embedding_dim, sum.data());
  }
  chunk_mean(sum.data(), info_.embedding_dim, chunks, embedding.data());
  return embedding;
}

Voice Speaker::enroll(const std::vector<std::pair<const float*, size_t>>& utterances) {
  if (utterances.empty()) throw InputError("enrolment", "at least one utterance", "none");
  std::vector<std::vector<float>> embeddings;
  for (const auto& [samples, count] : utterances) embeddings.push_back(embed(samples, count));
  return {space(), enrolled(embeddings)};
}

Decision Speaker::verify(const Voice& voice, const float* samples, size_t count) {
  check_space(voice.space, space());
  Decision decision;
  decision.score = cosine(voice.embedding, embed(samples, count));
  decision.llr = calibration_.slope * decision.score + calibration_.intercept;
  decision.accepted = decision.score >= point_.threshold;
  return decision;
}

}  // namespace voxpress::core
