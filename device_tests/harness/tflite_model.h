// What both engines for .tflite files share: libraries that are found at run time, our delegate, and what a file says
// of the lengths it takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "engine_model.h"
#include "json.h"

namespace voxpress::harness {

// A TfLiteDelegate, which is only passed on.
struct TfliteDelegate;

// A library that stays loaded: engines leave threads behind that would run into nothing. Throws std::runtime_error if
// it does not load.
class SharedLibrary {
 public:
  explicit SharedLibrary(const std::string& path);

  bool has(const char* name) const;

  // Address of a function. Throws std::runtime_error if there is none of this name.
  template <typename Function>
  void find(const char* name, Function* function) const {
    void* address = find_address(name);
    std::memcpy(function, &address, sizeof address);
  }

  void* handle() const { return handle_; }

 private:
  void* find_address(const char* name) const;

  std::string path_;
  void* handle_;
};

// Our delegate, see exporters/tflite/native/delegate.cc.
struct DelegatePlugin {
  // The library by its path, or as the system finds it if that is null or "".
  explicit DelegatePlugin(const char* path);

  TfliteDelegate* (*create)(const char* const* keys, const char* const* values, size_t count,
                            void (*report)(const char*));
  void (*destroy)(TfliteDelegate*);
  size_t (*kernels_used)(char* text, size_t size);
  void (*memory_use)(size_t* weight_bytes, size_t* scratch_bytes);
  int32_t (*register_accelerator)(void* environment, void* (*find)(const char*), const char* const* keys,
                                  const char* const* values, size_t count, void (*report)(const char*));
};

// The delegate's option for what a request asks of it: `count` pairs of a key and a value.
struct DelegateOptions {
  explicit DelegateOptions(const VoxpressEngineRequest& request) : count(request.low_memory != 0 ? 1 : 0) {}

  const char* keys[1] = {"low_memory"};
  const char* values[1] = {"1"};
  size_t count;  // without the option the delegate asks the environment
};

// Throws std::runtime_error: a model or a library is not what an engine takes.
[[noreturn]] void refuse(const std::string& why);

// An input or output as its runtime describes it: sizes of the first `rank` dimensions, at most three of them.
struct Endpoint {
  bool is_float;
  int64_t rank;
  int64_t sizes[3];
};

struct TfliteModel : VoxpressEngine {
  explicit TfliteModel(int32_t thread_count) : VoxpressEngine("litert", "", thread_count) {}

  size_t kernels_used(char* text, size_t size) const override;
  VoxpressMemoryUse memory_use() const override;

 protected:
  int64_t row_values() const { return mel_bins == 0 ? 1 : mel_bins; }

  // Frames, or the samples of so many frames.
  int64_t rows_of(int64_t frames) const {
    return mel_bins == 0 ? (frames - 1) * shift_samples + window_samples : frames;
  }

  void check_length(int64_t length) const;

  // Both throw std::runtime_error unless a model takes one features or samples, and gives one embedding.
  static void check_counts(size_t inputs, size_t outputs);
  void take_endpoints(const Endpoint& input, const Endpoint& output);  // sets mel_bins and embedding_dim

  // What the file says of itself where VoxPress wrote it; else any length that 32-bit sizes can name, and what is too
  // short, the model's own ops refuse. Needs mel_bins. Returns whether VoxPress wrote it.
  bool read_limits(const char* path);

  std::unique_ptr<DelegatePlugin> plugin;

 private:
  void read_manifest(const Json& manifest);
};

// A model on LiteRT 2's C library (libLiteRt.so), and on the C interface of TFLite's interpreter, which LiteRT 1's
// Android library (libtensorflowlite_jni.so) and libtensorflowlite_c.so have. Throw std::exception.
VoxpressEngine* open_compiled_model(const SharedLibrary& library, const VoxpressEngineRequest& request);
VoxpressEngine* open_interpreter(const SharedLibrary& library, const VoxpressEngineRequest& request);

}  // namespace voxpress::harness
