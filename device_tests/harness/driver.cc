#include "driver.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "errors.h"
#include "files.h"
#include "frontend/chunks.h"
#include "journal.h"
#include "json.h"
#include "machine.h"
#include "process_memory.h"
#include "safetensors.h"
#include "sha256.h"

namespace voxpress::harness {
namespace {

using Clock = std::chrono::steady_clock;

int64_t nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// What is measured, in the order of engine.json.
struct Measurements {
  int64_t load_ns = 0, first_ns = 0;
  std::vector<int64_t> latency_ns;
  int64_t resident_before_bytes = 0, resident_after_load_bytes = 0, resident_after_run_bytes = 0, peak_bytes = 0;
  MachineState before, after;
  size_t utterances = 0, resumed = 0;
};

class Progress {
 public:
  explicit Progress(int64_t total) : total_(total) {}
  void step() { std::fprintf(stderr, "progress %lld %lld\n", static_cast<long long>(++done_), total_); }
  void skip() { ++done_; }  // a step that was done before

 private:
  int64_t done_ = 0;
  long long total_;
};

// An open model that closes itself and turns the engine's error texts into exceptions.
class Model {
 public:
  Model(const VoxpressEngineApi& api, const RunOptions& options, const std::string& sha256)
      : api_(api), path_(options.model) {
    VoxpressEngineError error = {};
    VoxpressEngineRequest request = {};
    request.model_path = path_.c_str();
    request.threads = options.threads;
    request.low_memory = options.low_memory ? 1 : 0;
    request.runtime_library = options.runtime_library.c_str();
    request.delegate_library = options.delegate_library.c_str();
    handle_.reset(api.open(&request, &error));
    if (handle_ == nullptr) {
      throw InputError(path_, "a model that the engine can load", std::string(error.text) + " (sha256 " + sha256 + ")");
    }
    api.describe(handle_.get(), &info_);
  }

  const VoxpressEngineInfo& info() const { return info_; }

  bool takes_samples() const { return info_.mel_bins == 0; }

  // Values of one frame, or of one sample.
  int64_t row_values() const { return takes_samples() ? 1 : info_.mel_bins; }

  // Rows, which are frames or samples, from one frame to the next, and of so many frames.
  int64_t shift_rows() const { return takes_samples() ? info_.shift_samples : 1; }
  int64_t rows_of(int64_t frames) const {
    return takes_samples() ? (frames - 1) * info_.shift_samples + info_.window_samples : frames;
  }
  int64_t frames_of(int64_t rows) const {
    if (!takes_samples()) return rows;
    return rows < info_.window_samples ? 0 : 1 + (rows - info_.window_samples) / info_.shift_samples;
  }

  std::vector<float> embed(const std::string& utterance, const std::vector<float>& values) {
    std::vector<float> embedding(static_cast<size_t>(info_.embedding_dim));
    VoxpressEngineError error = {};
    const int64_t rows = static_cast<int64_t>(values.size()) / row_values();
    if (api_.run(handle_.get(), values.data(), rows, embedding.data(), &error) != 0) {
      throw InputError(path_, "a model that runs " + utterance, error.text);
    }
    return embedding;
  }

  // An utterance of any length: in chunks, of which one at a time is in memory, if the model says so.
  std::vector<float> embed(const StoredTensor& utterance) {
    const int64_t frames = frames_of(utterance.shape[0]);
    const int64_t count = chunk_count(frames, info_.chunk_frames);
    if (count <= 1) return embed(utterance.name, utterance.values(0, utterance.bytes / sizeof(float)));
    std::vector<double> sum(static_cast<size_t>(info_.embedding_dim));
    std::vector<float> embedding;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = chunk_start(frames, info_.chunk_frames, i) * shift_rows();
      std::vector<float> chunk = utterance.values(static_cast<size_t>(first * row_values()),
                                                  static_cast<size_t>(rows_of(info_.chunk_frames) * row_values()));
      if (!takes_samples()) chunk_normalise(chunk.data(), info_.chunk_frames, info_.mel_bins);
      embedding = embed(utterance.name, chunk);
      chunk_add(embedding.data(), info_.embedding_dim, sum.data());
    }
    chunk_mean(sum.data(), info_.embedding_dim, count, embedding.data());
    return embedding;
  }

  std::vector<std::string> kernels() const {
    std::string text(api_.kernels_used(handle_.get(), nullptr, 0) + 1, '\0');
    text.resize(std::min(api_.kernels_used(handle_.get(), text.data(), text.size()), text.size() - 1));
    return split(text);
  }

  VoxpressMemoryUse memory_use() const {
    VoxpressMemoryUse use = {};
    api_.memory_use(handle_.get(), &use);
    return use;
  }

  static std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> names;
    std::istringstream stream(text);
    for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  struct Close {
    const VoxpressEngineApi* api;
    void operator()(VoxpressEngine* handle) const { api->close(handle); }
  };

  const VoxpressEngineApi& api_;
  std::string path_;
  std::unique_ptr<VoxpressEngine, Close> handle_{nullptr, Close{&api_}};
  VoxpressEngineInfo info_ = {};
};

std::string frames_text(const VoxpressEngineInfo& info) {
  return std::to_string(info.min_frames) + " to " + std::to_string(info.max_frames) + " frames";
}

void check_utterance(const RunOptions& options, const Model& model, const StoredTensor& utterance) {
  const VoxpressEngineInfo& info = model.info();
  const std::string what = options.features + ": utterance " + utterance.name;
  const bool fits = model.takes_samples() ? utterance.shape.size() == 1
                                          : utterance.shape.size() == 2 && utterance.shape[1] == info.mel_bins;
  if (!fits) {
    std::string found = "[";
    for (const int64_t size : utterance.shape) found += (found.size() > 1 ? ", " : "") + std::to_string(size);
    const std::string features = "features [frames, " + std::to_string(info.mel_bins) + "]";
    throw InputError(what, model.takes_samples() ? "samples [S]" : features, found + "]");
  }
  const int64_t frames = model.frames_of(utterance.shape[0]);
  if (frames < info.min_frames || (frames > info.max_frames && info.chunk_frames == 0)) {
    throw InputError(what, frames_text(info), std::to_string(frames));
  }
}

// The utterance that is timed: the first of at least `rows` rows, cut; else the first at all, repeated.
std::vector<float> speed_values(const std::vector<StoredTensor>& utterances, int64_t rows, int64_t row_values) {
  const auto longer = [rows](const StoredTensor& utterance) { return utterance.shape[0] >= rows; };
  const auto found = std::find_if(utterances.begin(), utterances.end(), longer);
  const StoredTensor& source = found == utterances.end() ? utterances.front() : *found;
  const auto wanted = static_cast<size_t>(rows * row_values);
  std::vector<float> features = source.values(0, std::min(wanted, source.bytes / sizeof(float)));
  const size_t length = features.size();
  features.resize(wanted);
  for (size_t i = length; i < wanted; ++i) features[i] = features[i - length];
  return features;
}

void measure_speed(const RunOptions& options, const std::vector<float>& features, Model* model, Progress* progress,
                   Measurements* measured) {
  const std::string what = "an utterance of " + std::to_string(options.speed_frames) + " frames";
  const auto timed_run = [&] {
    const Clock::time_point start = Clock::now();
    model->embed(what, features);
    const int64_t elapsed_ns = nanoseconds_since(start);
    progress->step();
    return elapsed_ns;
  };
  measured->first_ns = timed_run();
  for (int64_t i = 0; i < options.warmup; ++i) timed_run();
  for (int64_t i = 0; i < options.runs; ++i) measured->latency_ns.push_back(timed_run());
  measured->resident_after_run_bytes = resident_bytes();
  measured->peak_bytes = peak_resident_bytes();
}

template <typename Items, typename Write>
std::string json_list(const Items& items, Write write) {
  std::string text = "[";
  for (const auto& item : items) text += (text.size() > 1 ? ", " : "") + write(item);
  return text + "]";
}

using Member = std::pair<const char*, std::string>;
using Members = std::vector<Member>;

// An object whose members are separated by `between`, which also stands before the first and after the last.
template <typename Items>
std::string json_object(const Items& members, const std::string& between) {
  std::string text = "{";
  for (const auto& [key, value] : members) {
    text += (text.size() > 1 ? "," : "") + between + quote_json(key) + ": " + value;
  }
  return text + between + "}";
}

std::string number(int64_t value) { return std::to_string(value); }

std::string machine_json(const Machine& machine) {
  const Members members = {
      {"os", quote_json(machine.os)},
      {"kernel", quote_json(machine.kernel)},
      {"architecture", quote_json(machine.architecture)},
      {"cpu_model", quote_json(machine.cpu_model)},
      {"cpu_features", json_list(machine.cpu_features, quote_json)},
      {"cores", number(machine.cores)},
      {"memory_bytes", number(machine.memory_bytes)},
  };
  return json_object(members, " ");
}

std::string state_json(const MachineState& state) {
  std::vector<std::pair<std::string, std::string>> temperatures;
  for (const auto& [zone, value] : state.temperature_mc) temperatures.emplace_back(zone, number(value));
  const Members members = {
      {"governor", state.governor.empty() ? "null" : quote_json(state.governor)},
      {"clock_hz", json_list(state.clock_hz, number)},
      {"max_clock_hz", json_list(state.max_clock_hz, number)},
      {"temperature_mc", json_object(temperatures, " ")},
      {"load_milli", state.load_milli < 0 ? "null" : number(state.load_milli)},
  };
  return json_object(members, " ");
}

// The runtime's own word, or that of whoever chose it.
std::string runtime_version(const RunOptions& options, const VoxpressEngineInfo& info) {
  const std::string version = *info.runtime_version == '\0' ? options.runtime_version : info.runtime_version;
  return quote_json(version.empty() ? "unknown" : version);
}

std::string report(const RunOptions& options, const Model& model, const std::string& sha256,
                   const Measurements& measured) {
  const VoxpressEngineInfo& info = model.info();
  const Members members = {
      {"engine", quote_json(info.engine)},
      {"runtime_version", runtime_version(options, info)},
      {"model", quote_json(std::filesystem::path(options.model).filename().string())},
      {"model_bytes", number(static_cast<int64_t>(file_bytes(options.model)))},
      {"model_sha256", quote_json(sha256)},
      {"threads", number(info.threads)},
      {"kernels", json_list(model.kernels(), quote_json)},
      {"delegates", json_list(Model::split(info.delegates), quote_json)},
      {"load_ns", number(measured.load_ns)},
      {"first_ns", number(measured.first_ns)},
      {"latency_ns", json_list(measured.latency_ns, number)},
      {"resident_before_bytes", number(measured.resident_before_bytes)},
      {"resident_after_load_bytes", number(measured.resident_after_load_bytes)},
      {"resident_after_run_bytes", number(measured.resident_after_run_bytes)},
      {"peak_bytes", number(measured.peak_bytes)},
      {"utterances", number(static_cast<int64_t>(measured.utterances))},
      {"resumed", number(static_cast<int64_t>(measured.resumed))},
      {"machine", machine_json(read_machine())},
      {"before", state_json(measured.before)},
      {"after", state_json(measured.after)},
  };
  return json_object(members, "\n ") + "\n";
}

void answer(const Members& members) {
  const std::string line = json_object(members, "") + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

// Nine digits give every float back; JSON has no word for what is not finite.
std::string json_float(float value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return text;
}

std::string embeddings_of(const std::vector<StoredTensor>& utterances, Model* model) {
  Members embeddings;
  for (const StoredTensor& utterance : utterances) {
    const std::vector<float> embedding = model->embed(utterance);
    embeddings.emplace_back(utterance.name.c_str(), json_list(embedding, json_float));
  }
  return json_object(embeddings, "");
}

// Refuses utterances that the model does not take.
void check_input(const RunOptions& options, const Model& model, const std::vector<StoredTensor>& utterances) {
  const VoxpressEngineInfo& info = model.info();
  for (const StoredTensor& utterance : utterances) check_utterance(options, model, utterance);
  if (options.speed_frames < info.min_frames || options.speed_frames > info.max_frames) {
    throw InputError(options.model + ": --speed-frames", frames_text(info), std::to_string(options.speed_frames));
  }
}

void check_engine(const VoxpressEngineApi& api) {
  if (api.abi != VOXPRESS_ENGINE_ABI) {
    throw InputError("engine", "ABI " + std::to_string(VOXPRESS_ENGINE_ABI), std::to_string(api.abi));
  }
}

const std::vector<StoredTensor>& utterances_of(const SafetensorsFile& features, const RunOptions& options) {
  if (features.tensors().empty()) throw InputError(options.features, "at least one utterance", "none");
  return features.tensors();
}

std::string kernels_hold(const VoxpressMemoryUse& use) {
  return json_object(Members{{"weight_bytes", number(static_cast<int64_t>(use.weight_bytes))},
                             {"scratch_bytes", number(static_cast<int64_t>(use.scratch_bytes))}},
                     "");
}

void answer_request(const std::string& line, const std::vector<StoredTensor>& utterances,
                    const std::vector<float>& features, const RunOptions& options, Model* model) {
  std::istringstream words(line);
  std::string verb;
  words >> verb;
  int64_t warmup = 0, runs = 0;
  if (verb == "run" && words >> warmup >> runs && warmup >= 0 && runs >= 1) {
    const std::string what = "an utterance of " + std::to_string(options.speed_frames) + " frames";
    for (int64_t i = 0; i < warmup; ++i) model->embed(what, features);
    std::vector<int64_t> latency_ns;
    for (int64_t i = 0; i < runs; ++i) {
      const Clock::time_point start = Clock::now();
      model->embed(what, features);
      latency_ns.push_back(nanoseconds_since(start));
    }
    answer({{"latency_ns", json_list(latency_ns, number)}});
  } else if (verb == "embed") {
    answer({{"embeddings", embeddings_of(utterances, model)}});
  } else if (verb == "memory") {
    answer({{"resident_bytes", number(resident_bytes())},
            {"peak_bytes", number(peak_resident_bytes())},
            {"kernels_hold", kernels_hold(model->memory_use())},
            {"kernels", json_list(model->kernels(), quote_json)}});
  } else {
    throw InputError("request", "run WARMUP RUNS, embed or memory", line);
  }
}

// Embeds every utterance that the journal does not hold yet, and writes them all.
void measure_accuracy(const RunOptions& options, const SafetensorsFile& features, const std::string& key, Model* model,
                      Progress* progress, Measurements* measured) {
  EmbeddingJournal journal(options.out + "/embeddings.journal", key);
  std::vector<std::pair<std::string, std::vector<float>>> embeddings;
  for (const StoredTensor& utterance : features.tensors()) {
    if (journal.embeddings().count(utterance.name) != 0) {
      ++measured->resumed;
      progress->skip();
    } else {
      journal.add(utterance.name, model->embed(utterance));
      progress->step();
    }
    embeddings.emplace_back(utterance.name, journal.embeddings().at(utterance.name));
  }
  write_atomically(options.out + "/embeddings.safetensors", encode_vectors(embeddings));
  measured->utterances = embeddings.size();
}

std::string checked_sha256(const RunOptions& options) {
  const MappedFile file(options.model);
  std::string sha256 = sha256_hex(file.data(), file.size());
  if (!options.model_sha256.empty() && sha256 != options.model_sha256) {
    throw InputError(options.model, "sha256 " + options.model_sha256, sha256);
  }
  return sha256;
}

}  // namespace

std::string describe_machine() {
  const Members members = {{"machine", machine_json(read_machine())}, {"state", state_json(read_machine_state())}};
  return json_object(members, " ");
}

void serve_engine(const VoxpressEngineApi& api, const RunOptions& options) {
  check_engine(api);
  const std::string sha256 = checked_sha256(options);
  const SafetensorsFile stored(options.features);
  const std::vector<StoredTensor>& utterances = utterances_of(stored, options);

  const int64_t before = resident_bytes();
  Clock::time_point start = Clock::now();
  Model model(api, options, sha256);
  const int64_t load_ns = nanoseconds_since(start);
  const int64_t after_load = resident_bytes();
  const VoxpressEngineInfo& info = model.info();
  check_input(options, model, utterances);
  const std::vector<float> features = speed_values(utterances, model.rows_of(options.speed_frames), model.row_values());
  start = Clock::now();
  model.embed("the first utterance", features);
  const int64_t first_ns = nanoseconds_since(start);
  answer({{"engine", quote_json(info.engine)},
          {"runtime_version", runtime_version(options, info)},
          {"threads", number(info.threads)},
          {"kernels", json_list(model.kernels(), quote_json)},
          {"delegates", json_list(Model::split(info.delegates), quote_json)},
          {"load_ns", number(load_ns)},
          {"first_ns", number(first_ns)},
          {"resident_before_bytes", number(before)},
          {"resident_after_load_bytes", number(after_load)},
          {"resident_after_first_bytes", number(resident_bytes())}});
  for (std::string line; std::getline(std::cin, line);) answer_request(line, utterances, features, options, &model);
}

void run_engine(const VoxpressEngineApi& api, const RunOptions& options) {
  check_engine(api);
  const std::string sha256 = checked_sha256(options);
  const SafetensorsFile features(options.features);
  const std::vector<StoredTensor>& utterances = utterances_of(features, options);

  Measurements measured;
  measured.before = read_machine_state();
  measured.resident_before_bytes = resident_bytes();
  const Clock::time_point start = Clock::now();
  Model model(api, options, sha256);
  measured.load_ns = nanoseconds_since(start);
  measured.resident_after_load_bytes = resident_bytes();

  // Everything that can be wrong with the input is said before the first run.
  check_input(options, model, utterances);
  std::error_code failure;
  std::filesystem::create_directories(options.out, failure);
  if (failure) throw InputError(options.out, "a folder to write to", failure.message());

  Progress progress(1 + options.warmup + options.runs +
                    (options.skip_accuracy ? 0 : static_cast<int64_t>(utterances.size())));
  const std::vector<float> timed = speed_values(utterances, model.rows_of(options.speed_frames), model.row_values());
  measure_speed(options, timed, &model, &progress, &measured);
  if (!options.skip_accuracy) {
    measure_accuracy(options, features, sha256 + " " + features.sha256(), &model, &progress, &measured);
  }
  measured.after = read_machine_state();
  write_atomically(options.out + "/engine.json", report(options, model, sha256, measured));
  if (!options.skip_accuracy) std::filesystem::remove(options.out + "/embeddings.journal", failure);
}

}  // namespace voxpress::harness
