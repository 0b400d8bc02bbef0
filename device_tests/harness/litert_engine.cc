// LiteRT behind engine.h: its C library is loaded at run time, and our delegate is handed to it as an accelerator, so
// that .tflite files run on the library that apps ship, without any header or symbol of it at build time.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine_model.h"
#include "json.h"
#include "litert_abi.h"

namespace {

using namespace voxpress::harness::litert;  // NOLINT: the whole file is about these names
using voxpress::harness::Json;

constexpr char kRuntimeName[] = "libLiteRt.so";
constexpr char kDelegateName[] = "libvoxpress_tflite_delegate.so";
constexpr char kManifestKey[] = "voxpress_manifest";
constexpr size_t kAlignment = 64;  // what the runtime asks of host memory

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

std::string or_default(const char* path, const char* name) {
  return path == nullptr || *path == '\0' ? std::string(name) : std::string(path);
}

// A library that stays loaded: engines leave threads behind that would run into nothing.
class Library {
 public:
  explicit Library(const std::string& path) : path_(path), handle_(::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) refuse("a library that does not load (" + std::string(::dlerror()) + ")");
  }

  template <typename Function>
  void find(const char* name, Function* function) const {
    void* address = ::dlsym(handle_, name);
    if (address == nullptr) refuse(path_ + " has no " + name);
    std::memcpy(function, &address, sizeof address);
  }

 private:
  std::string path_;
  void* handle_;
};

// What the runtime writes to the standard error stream while this lives; it explains failures nowhere else.
class HeldBack {
 public:
  HeldBack() : file_(std::tmpfile()), kept_(::dup(STDERR_FILENO)) {
    std::fflush(stderr);
    if (file_ != nullptr && kept_ >= 0) ::dup2(::fileno(file_), STDERR_FILENO);
  }
  ~HeldBack() {
    std::fflush(stderr);
    if (kept_ >= 0) {
      ::dup2(kept_, STDERR_FILENO);
      ::close(kept_);
    }
    if (file_ != nullptr) std::fclose(file_);
  }
  HeldBack(const HeldBack&) = delete;
  HeldBack& operator=(const HeldBack&) = delete;

  // The first line that speaks of an error, else nothing.
  std::string first_error() {
    if (file_ == nullptr) return "";
    std::fflush(stderr);
    std::rewind(file_);
    char line[400];
    while (std::fgets(line, sizeof line, file_) != nullptr) {
      const std::string text = line;
      const size_t at = text.find("ERROR");
      if (at != std::string::npos) return text.substr(at, text.find_last_not_of("\r\n") + 1 - at);
    }
    return "";
  }

 private:
  std::FILE* file_;
  int kept_;
};

struct Runtime {
  explicit Runtime(const std::string& path) {
    const Library library(path);
#define VOXPRESS_LITERT_FUNCTION(result, name, ...) library.find("LiteRt" #name, &name);
#include "litert_functions.inc"
  }

#define VOXPRESS_LITERT_FUNCTION(result, name, ...) result (*name)(__VA_ARGS__) = nullptr;
#include "litert_functions.inc"
};

struct DelegatePlugin {
  explicit DelegatePlugin(const std::string& path) {
    const Library library(path);
    library.find("tflite_plugin_create_delegate", &create);
    library.find("tflite_plugin_destroy_delegate", &destroy);
    library.find("voxpress_kernels_used", &kernels_used);
    library.find("voxpress_memory_use", &memory_use);
  }

  Delegate* (*create)(const char* const* keys, const char* const* values, size_t count, void (*report)(const char*));
  void (*destroy)(Delegate*);
  size_t (*kernels_used)(char* text, size_t size);
  void (*memory_use)(size_t* weight_bytes, size_t* scratch_bytes);
};

// The runtime asks an accelerator for its delegate through functions that know no context of ours. One model at a time
// is opened in a process, and these are whose delegate it gets.
const Runtime* opening_runtime = nullptr;
const DelegatePlugin* opening_plugin = nullptr;
bool opening_low_memory = false;

// A compiled model does not tell delegates its number of threads, so that ours is told through its environment, unless
// that has a say of its own. It holds for every model of the process from the next one opened on.
void tell_threads(int32_t threads) {
  static const bool has_its_own = std::getenv("VOXPRESS_THREADS") != nullptr;
  if (!has_its_own) ::setenv("VOXPRESS_THREADS", std::to_string(threads).c_str(), 1);
}
std::string delegate_complaint;

int32_t accelerator_name(const void*, const char** name) {
  *name = "voxpress";
  return kOk;
}

int32_t accelerator_version(const void*, ApiVersion* version) {
  *version = {1, 0, 0};
  return kOk;
}

int32_t accelerator_hardware(const void*, int32_t* hardware) {
  *hardware = kCpu;
  return kOk;
}

int32_t accelerator_compiles(const void*, bool* compiles) {
  *compiles = false;
  return kOk;
}

int32_t create_delegate(void*, void*, const void*, void*, void** wrapper) {
  const char* const keys[] = {"low_memory"};
  const char* const values[] = {"1"};
  // Without the option the delegate asks the environment.
  Delegate* delegate = opening_plugin->create(keys, values, opening_low_memory ? 1 : 0,
                                              [](const char* message) { delegate_complaint = message; });
  if (delegate == nullptr) return kRuntimeFailure;
  return opening_runtime->WrapDelegate(delegate, opening_plugin->destroy, wrapper);
}

void free_text(void* text) { std::free(text); }

struct AlignedMemory {
  explicit AlignedMemory(size_t wanted)
      : bytes((std::max<size_t>(wanted, 1) + kAlignment - 1) / kAlignment * kAlignment) {
    void* memory = nullptr;  // not aligned_alloc, which Android has only from 9 on
    if (::posix_memalign(&memory, kAlignment, bytes) != 0) refuse("no memory for " + std::to_string(bytes) + " bytes");
    data.reset(memory);
    std::memset(data.get(), 0, bytes);
  }

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  size_t bytes;
  std::unique_ptr<void, Free> data;
};

struct LitertModel final : VoxpressEngine {
  // The library does not say its version; whoever chose it knows.
  explicit LitertModel(const VoxpressEngineRequest& request)
      : VoxpressEngine("litert", "", request.threads), runtime(or_default(request.runtime_library, kRuntimeName)) {
    HeldBack said;
    try {
      open(request);
    } catch (const std::exception& exception) {
      const std::string reason = delegate_complaint.empty() ? said.first_error() : delegate_complaint;
      close();
      if (reason.empty()) throw;
      refuse(std::string(exception.what()) + " (" + reason + ")");
    }
  }
  ~LitertModel() override {
    const HeldBack chatter;  // the runtime says farewell
    close();
  }

  VoxpressMemoryUse memory_use() const override {
    VoxpressMemoryUse use = {};
    if (plugin != nullptr) plugin->memory_use(&use.weight_bytes, &use.scratch_bytes);
    return use;
  }

  size_t kernels_used(char* text, size_t size) const override {
    if (plugin != nullptr) return plugin->kernels_used(text, size);
    if (size > 0) text[0] = '\0';
    return 0;
  }

  void run(const float* utterance, int64_t length, float* embedding) override {
    const int64_t least = rows_of(min_frames), most = rows_of(max_frames);
    if (length < least || length > most) {
      refuse("the model takes " + std::to_string(least) + " to " + std::to_string(most) +
             (mel_bins == 0 ? " samples" : " frames"));
    }
    if (length != prepared_length) prepare(length);
    std::memcpy(input_memory->data.get(), utterance, static_cast<size_t>(length * row_values()) * sizeof(float));
    require(runtime.RunCompiledModel(compiled, 0, 1, &input, 1, &output), "running the model");
    std::memcpy(embedding, output_memory->data.get(), static_cast<size_t>(embedding_dim) * sizeof(float));
  }

 private:
  int64_t row_values() const { return mel_bins == 0 ? 1 : mel_bins; }

  // Frames, or the samples of so many frames.
  int64_t rows_of(int64_t frames) const {
    return mel_bins == 0 ? (frames - 1) * shift_samples + window_samples : frames;
  }

  void require(int32_t status, const std::string& what) const {
    if (status == kOk) return;
    std::string detail;
    char* messages = nullptr;
    if (compiled != nullptr && runtime.CompiledModelGetErrorMessages(compiled, &messages) == kOk &&
        messages != nullptr) {
      detail = messages;
      std::free(messages);
      detail = detail.substr(0, detail.find('\n'));
    }
    refuse(what + ": status " + std::to_string(status) + (detail.empty() ? "" : " (" + detail + ")"));
  }

  void open(const VoxpressEngineRequest& request) {
    delegate_complaint.clear();
    require(runtime.CreateEnvironment(0, nullptr, &environment), "the environment");
    require(runtime.CreateModelFromFile(environment, request.model_path, &model), "the file");
    const std::vector<std::string> custom = custom_ops();
    for (const std::string& name : custom) {
      if (name.rfind("voxpress.", 0) != 0) refuse("custom op '" + name + "', which is not one of VoxPress");
    }
    read_endpoints();
    read_limits();
    if (!custom.empty()) {
      plugin = std::make_unique<DelegatePlugin>(or_default(request.delegate_library, kDelegateName));
      tell_threads(threads);
      register_delegate();
      delegates = "voxpress";
    } else {
      delegates = "xnnpack";
    }
    require(runtime.CreateOptions(&options), "options");
    require(runtime.SetOptionsHardwareAccelerators(options, kCpu), "options");
    // Both texts are the runtime's own form of its options. XNNPACK would come before our delegate and stumble over ops
    // that it does not know, so a model with our ops does without.
    const std::string cpu =
        std::string("num_threads = ") + std::to_string(threads) + (plugin ? "\nkernel_mode = \"builtin\"\n" : "\n");
    add_option("xnnpack", cpu);
    add_option("runtime_options_string", "error_reporter_mode = 2\n");
    opening_runtime = &runtime;
    opening_plugin = plugin.get();
    opening_low_memory = request.low_memory != 0;
    const int32_t status = runtime.CreateCompiledModel(environment, model, options, &compiled);
    opening_plugin = nullptr;
    require(status, "compiling the model");
  }

  void add_option(const char* name, const std::string& text) {
    void* opaque = nullptr;
    require(runtime.CreateOpaqueOptions(name, ::strdup(text.c_str()), free_text, &opaque), "options");
    require(runtime.AddOpaqueOptions(options, opaque), "options");
  }

  void register_delegate() {
    void* accelerator = nullptr;
    require(runtime.CreateAccelerator(&accelerator), "the accelerator");
    require(runtime.SetAcceleratorGetName(accelerator, accelerator_name), "the accelerator");
    require(runtime.SetAcceleratorGetVersion(accelerator, accelerator_version), "the accelerator");
    require(runtime.SetAcceleratorGetHardwareSupport(accelerator, accelerator_hardware), "the accelerator");
    require(runtime.SetIsAcceleratorDelegateResponsibleForJitCompilation(accelerator, accelerator_compiles),
            "the accelerator");
    require(runtime.SetDelegateFunction(accelerator, create_delegate), "the accelerator");
    require(runtime.RegisterAccelerator(environment, accelerator, nullptr, nullptr), "the accelerator");
  }

  std::vector<std::string> custom_ops() const {
    void* graph = nullptr;
    size_t count = 0;
    require(runtime.GetModelSubgraph(model, 0, &graph), "the graph");
    require(runtime.GetNumSubgraphOps(graph, &count), "the graph");
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) {
      void* op = nullptr;
      int32_t code = 0;
      require(runtime.GetSubgraphOp(graph, i, &op), "the graph");
      require(runtime.GetOpCode(op, &code), "the graph");
      if (code != kCustomOp) continue;
      const char* name = nullptr;
      require(runtime.GetCustomCode(op, &name), "the graph");
      names.emplace_back(name);
    }
    return names;
  }

  RankedType endpoint(void* tensor, const char* what, uint32_t least_rank, uint32_t most_rank,
                      const char* expected) const {
    RankedType type = {};
    require(runtime.GetRankedTensorType(tensor, &type), what);
    const uint32_t rank = type.layout.rank;
    if (type.element != kFloat32 || rank < least_rank || rank > most_rank || type.layout.dimensions[0] != 1) {
      refuse(std::string("the model's ") + what + " is no float " + expected);
    }
    return type;
  }

  void read_endpoints() {
    size_t signatures = 0, inputs = 0, outputs = 0;
    require(runtime.GetNumModelSignatures(model, &signatures), "the signature");
    if (signatures != 1) refuse(std::to_string(signatures) + " signatures, not one");
    void *signature = nullptr, *tensor = nullptr;
    require(runtime.GetModelSignature(model, 0, &signature), "the signature");
    require(runtime.GetNumSignatureInputs(signature, &inputs), "the signature");
    require(runtime.GetNumSignatureOutputs(signature, &outputs), "the signature");
    if (inputs != 1 || outputs != 1) {
      refuse(std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
             " outputs, not one features and one embedding");
    }
    require(runtime.GetSignatureInputTensorByIndex(signature, 0, &tensor), "the input");
    input_type = endpoint(tensor, "input", 2, 3, "[1, frames, mel] or [1, samples]");
    require(runtime.GetSignatureOutputTensorByIndex(signature, 0, &tensor), "the output");
    output_type = endpoint(tensor, "output", 2, 2, "[1, embedding]");
    mel_bins = input_type.layout.rank == 3 ? input_type.layout.dimensions[2] : 0;
    embedding_dim = output_type.layout.dimensions[1];
    if ((input_type.layout.rank == 3 && mel_bins < 1) || embedding_dim < 1) {
      refuse("a model whose mel bins or embedding have no fixed size");
    }
  }

  // What the file says of itself where VoxPress wrote it; else any length that 32-bit sizes can name, and what is too
  // short, the model's own ops refuse.
  void read_limits() {
    const int64_t most = std::numeric_limits<int32_t>::max() / row_values();
    max_frames = most;
    const void* data = nullptr;
    size_t bytes = 0;
    if (runtime.GetModelMetadata(model, kManifestKey, &data, &bytes) == kOk) {
      read_manifest(voxpress::harness::parse_json({static_cast<const char*>(data), bytes}));
    }
    if (mel_bins == 0) max_frames = std::min(max_frames, (most - window_samples) / shift_samples + 1);
    if (min_frames < 1 || max_frames < min_frames || chunk_frames < 0 || chunk_frames > max_frames) {
      refuse("a manifest whose limits do not fit together");
    }
  }

  void read_manifest(const Json& manifest) {
    const Json *least = manifest.find("min_frames"), *longest = manifest.find("max_frames");
    const Json *chunks = manifest.find("long_audio"), *frontend = manifest.find("frontend");
    if (least == nullptr || longest == nullptr || frontend == nullptr) {
      refuse("a manifest without min_frames, max_frames or frontend");
    }
    min_frames = count(least, "min_frames");
    if (longest->kind != Json::Kind::kNull) max_frames = std::min(max_frames, count(longest, "max_frames"));
    // Files from before there were chunks do not speak of them.
    if (chunks != nullptr && chunks->kind != Json::Kind::kNull)
      chunk_frames = count(chunks->find("chunk_frames"), "chunk_frames");
    if (mel_bins != 0) return;
    // Samples of a frame and between frames, rounded down as Kaldi does; as pipeline/features/spec.py has them.
    const double per_ms = static_cast<double>(count(frontend->find("sample_rate_hz"), "sample_rate_hz")) * 0.001;
    window_samples = static_cast<int64_t>(per_ms * number(frontend->find("frame_length_ms"), "frame_length_ms"));
    shift_samples = static_cast<int64_t>(per_ms * number(frontend->find("frame_shift_ms"), "frame_shift_ms"));
    if (window_samples < 1 || shift_samples < 1) refuse("a manifest whose frames are shorter than a sample");
  }

  static int64_t count(const Json* value, const char* key) {
    if (value == nullptr || value->kind != Json::Kind::kInteger || value->integer < 1 ||
        value->integer > std::numeric_limits<int32_t>::max()) {
      refuse(std::string("a manifest without a count ") + key);
    }
    return value->integer;
  }

  static double number(const Json* value, const char* key) {
    const bool is_integer = value != nullptr && value->kind == Json::Kind::kInteger;
    const bool is_real = value != nullptr && value->kind == Json::Kind::kReal;
    const double found = is_integer ? static_cast<double>(value->integer) : is_real ? value->real : 0;
    if (!(found > 0 && found <= 1000)) refuse(std::string("a manifest without ") + key + " of up to 1000");
    return found;
  }

  void prepare(int64_t length) {
    prepared_length = 0;
    release_buffers();
    const int32_t sizes[] = {1, static_cast<int32_t>(length), static_cast<int32_t>(mel_bins)};
    require(runtime.CompiledModelResizeInputTensorNonStrict(compiled, 0, 0, sizes, input_type.layout.rank), "resizing");
    Layout layout = {};
    require(runtime.GetCompiledModelOutputTensorLayouts(compiled, 0, 1, &layout, true), "resizing");
    input_type.layout.dimensions[1] = sizes[1];
    input_memory = std::make_unique<AlignedMemory>(static_cast<size_t>(length * row_values()) * sizeof(float));
    output_memory = std::make_unique<AlignedMemory>(static_cast<size_t>(embedding_dim) * sizeof(float));
    input = buffer(input_type, *input_memory);
    output = buffer(output_type, *output_memory);
    prepared_length = length;
  }

  void* buffer(const RankedType& type, const AlignedMemory& memory) const {
    void* made = nullptr;
    require(runtime.CreateTensorBufferFromHostMemory(&type, memory.data.get(), memory.bytes, nullptr, &made),
            "a buffer");
    return made;
  }

  void release_buffers() {
    if (input != nullptr) runtime.DestroyTensorBuffer(input);
    if (output != nullptr) runtime.DestroyTensorBuffer(output);
    input = output = nullptr;
  }

  void close() {
    release_buffers();
    if (compiled != nullptr) runtime.DestroyCompiledModel(compiled);
    if (options != nullptr) runtime.DestroyOptions(options);
    if (model != nullptr) runtime.DestroyModel(model);
    if (environment != nullptr) runtime.DestroyEnvironment(environment);
    compiled = options = model = environment = nullptr;
  }

  Runtime runtime;
  std::unique_ptr<DelegatePlugin> plugin;
  void *environment = nullptr, *model = nullptr, *options = nullptr, *compiled = nullptr;
  void *input = nullptr, *output = nullptr;
  RankedType input_type = {}, output_type = {};
  std::unique_ptr<AlignedMemory> input_memory, output_memory;
  int64_t prepared_length = 0;  // frames, or samples
};

VoxpressEngine* open_model(const VoxpressEngineRequest* request, VoxpressEngineError* error) {
  return voxpress::harness::opened([&] { return new LitertModel(*request); }, error);
}

}  // namespace

const VoxpressEngineApi* voxpress_litert_engine(void) {
  static const VoxpressEngineApi api = voxpress::harness::engine_api(open_model);
  return &api;
}
