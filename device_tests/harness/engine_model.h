// What stands behind the handle of engine.h in every engine of ours, and the calls that are the same for all of them.
// One type: two engines may lie in one library, where two types of the same name would be merged by the linker.
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include "engine.h"

struct VoxpressEngine {
  VoxpressEngine(const char* engine_name, const char* version, int32_t thread_count)
      : name(engine_name), runtime_version(version), threads(thread_count) {}
  virtual ~VoxpressEngine() = default;
  VoxpressEngine(const VoxpressEngine&) = delete;
  VoxpressEngine& operator=(const VoxpressEngine&) = delete;

  // As VoxpressEngineApi says; failures are exceptions.
  virtual void run(const float* utterance, int64_t length, float* embedding) = 0;
  virtual size_t kernels_used(char* text, size_t size) const = 0;
  virtual VoxpressMemoryUse memory_use() const = 0;

  const char *name, *runtime_version;
  int32_t threads;
  std::string delegates;
  int64_t min_frames = 1, max_frames = 0, mel_bins = 0, embedding_dim = 0, chunk_frames = 0;
  int64_t window_samples = 1, shift_samples = 1;
};

namespace voxpress::harness {

inline void tell(const std::exception& exception, VoxpressEngineError* error) {
  std::snprintf(error->text, sizeof error->text, "%s", exception.what());
  for (char* letter = error->text; *letter != '\0'; ++letter) {
    // The runtimes quote names from the file as they are; one line of plain text is promised.
    if (*letter < 0x20 || *letter > 0x7E) *letter = '?';
  }
}

// The handle of a model that `make()` returns a new one of; null, with the reason in `error`, if that throws.
template <typename Make>
VoxpressEngine* opened(Make make, VoxpressEngineError* error) {
  try {
    return std::move(make)();
  } catch (const std::exception& exception) {
    tell(exception, error);
    return nullptr;
  }
}

inline void describe_model(const VoxpressEngine* engine, VoxpressEngineInfo* info) {
  info->engine = engine->name;
  info->runtime_version = engine->runtime_version;
  info->delegates = engine->delegates.c_str();
  info->threads = engine->threads;
  info->min_frames = engine->min_frames;
  info->max_frames = engine->max_frames;
  info->mel_bins = engine->mel_bins;
  info->window_samples = engine->window_samples;
  info->shift_samples = engine->shift_samples;
  info->chunk_frames = engine->chunk_frames;
  info->embedding_dim = engine->embedding_dim;
}

inline int32_t run_model(VoxpressEngine* engine, const float* utterance, int64_t length, float* embedding,
                         VoxpressEngineError* error) {
  try {
    engine->run(utterance, length, embedding);
    return 0;
  } catch (const std::exception& exception) {
    tell(exception, error);
    return 1;
  }
}

inline size_t kernels_used(const VoxpressEngine* engine, char* text, size_t size) {
  return engine->kernels_used(text, size);
}

inline void memory_use(const VoxpressEngine* engine, VoxpressMemoryUse* use) { *use = engine->memory_use(); }

inline void close_model(VoxpressEngine* engine) { delete engine; }

inline VoxpressEngineApi engine_api(VoxpressEngine* (*open)(const VoxpressEngineRequest*, VoxpressEngineError*)) {
  return {VOXPRESS_ENGINE_ABI, open, describe_model, run_model, kernels_used, memory_use, close_model};
}

}  // namespace voxpress::harness
