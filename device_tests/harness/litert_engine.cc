// LiteRT 2's C library behind engine.h. It takes our delegate as an accelerator, as its compiled models take no
// delegates of their callers.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "litert_abi.h"
#include "tflite_model.h"

namespace voxpress::harness {
namespace {

using namespace litert;  // NOLINT: the whole file is about these names

constexpr size_t kAlignment = 64;  // what the runtime asks of host memory

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
  explicit Runtime(const SharedLibrary& library) {
#define VOXPRESS_LITERT_FUNCTION(result, name, ...) library.find("LiteRt" #name, &name);
#include "litert_functions.inc"
  }

#define VOXPRESS_LITERT_FUNCTION(result, name, ...) result (*name)(__VA_ARGS__) = nullptr;
#include "litert_functions.inc"
};

// A compiled model does not tell delegates its number of threads, so that ours is told through its environment, unless
// that has a say of its own. It holds for every model of the process from the next one opened on.
void tell_threads(int32_t threads) {
  static const bool has_its_own = std::getenv("VOXPRESS_THREADS") != nullptr;
  if (!has_its_own) ::setenv("VOXPRESS_THREADS", std::to_string(threads).c_str(), 1);
}

// The delegate is made while a model is compiled, by a function that knows no context of ours; one model at a time is
// opened in a process.
std::string delegate_complaint;

// The library whose functions the delegate asks for while it registers itself.
void* registering_with = nullptr;

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

struct LitertModel final : TfliteModel {
  // The library does not say its version; whoever chose it knows.
  LitertModel(const SharedLibrary& library, const VoxpressEngineRequest& request)
      : TfliteModel(request.threads), runtime(library) {
    HeldBack said;
    try {
      open(library, request);
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

  void run(const float* utterance, int64_t length, float* embedding) override {
    check_length(length);
    if (length != prepared_length) prepare(length);
    std::memcpy(input_memory->data.get(), utterance, static_cast<size_t>(length * row_values()) * sizeof(float));
    require(runtime.RunCompiledModel(compiled, 0, 1, &input, 1, &output), "running the model");
    std::memcpy(embedding, output_memory->data.get(), static_cast<size_t>(embedding_dim) * sizeof(float));
  }

 private:
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

  void open(const SharedLibrary& library, const VoxpressEngineRequest& request) {
    delegate_complaint.clear();
    require(runtime.CreateEnvironment(0, nullptr, &environment), "the environment");
    require(runtime.CreateModelFromFile(environment, request.model_path, &model), "the file");
    const std::vector<std::string> custom = custom_ops();
    for (const std::string& name : custom) {
      if (name.rfind("voxpress.", 0) != 0) refuse("custom op '" + name + "', which is not one of VoxPress");
    }
    read_endpoints();
    read_limits(request.model_path);
    if (!custom.empty()) {
      plugin = std::make_unique<DelegatePlugin>(request.delegate_library);
      tell_threads(threads);
      register_delegate(library, request);
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
    require(runtime.CreateCompiledModel(environment, model, options, &compiled), "compiling the model");
  }

  void add_option(const char* name, const std::string& text) {
    void* opaque = nullptr;
    require(runtime.CreateOpaqueOptions(name, ::strdup(text.c_str()), free_text, &opaque), "options");
    require(runtime.AddOpaqueOptions(options, opaque), "options");
  }

  void register_delegate(const SharedLibrary& library, const VoxpressEngineRequest& request) {
    const DelegateOptions wanted(request);
    registering_with = library.handle();
    const int32_t status = plugin->register_accelerator(
        environment, [](const char* name) { return ::dlsym(registering_with, name); }, wanted.keys, wanted.values,
        wanted.count, [](const char* message) { delegate_complaint = message; });
    require(status, "the accelerator");
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

  static Endpoint endpoint(const RankedType& type) {
    Endpoint found = {type.element == kFloat32, type.layout.rank, {}};
    for (uint32_t i = 0; i < std::min<uint32_t>(type.layout.rank, 3); ++i) found.sizes[i] = type.layout.dimensions[i];
    return found;
  }

  void read_endpoints() {
    size_t signatures = 0, inputs = 0, outputs = 0;
    require(runtime.GetNumModelSignatures(model, &signatures), "the signature");
    if (signatures != 1) refuse(std::to_string(signatures) + " signatures, not one");
    void *signature = nullptr, *tensor = nullptr;
    require(runtime.GetModelSignature(model, 0, &signature), "the signature");
    require(runtime.GetNumSignatureInputs(signature, &inputs), "the signature");
    require(runtime.GetNumSignatureOutputs(signature, &outputs), "the signature");
    check_counts(inputs, outputs);
    require(runtime.GetSignatureInputTensorByIndex(signature, 0, &tensor), "the input");
    require(runtime.GetRankedTensorType(tensor, &input_type), "input");
    require(runtime.GetSignatureOutputTensorByIndex(signature, 0, &tensor), "the output");
    require(runtime.GetRankedTensorType(tensor, &output_type), "output");
    take_endpoints(endpoint(input_type), endpoint(output_type));
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
  void *environment = nullptr, *model = nullptr, *options = nullptr, *compiled = nullptr;
  void *input = nullptr, *output = nullptr;
  RankedType input_type = {}, output_type = {};
  std::unique_ptr<AlignedMemory> input_memory, output_memory;
  int64_t prepared_length = 0;  // frames, or samples
};

}  // namespace

VoxpressEngine* open_compiled_model(const SharedLibrary& library, const VoxpressEngineRequest& request) {
  return new LitertModel(library, request);
}

}  // namespace voxpress::harness
