// The C interface of TFLite's interpreter behind engine.h: what LiteRT 1's Android library and TensorFlow Lite before
// it export beside their Java interface. Our delegate is handed to the interpreter, whatever ops the file has.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>

#include "tflite_model.h"

namespace voxpress::harness {
namespace {

constexpr int32_t kOk = 0, kFloat32 = 1;

struct InterpreterFunctions {
  explicit InterpreterFunctions(const SharedLibrary& library) {
#define VOXPRESS_TFLITE_FUNCTION(result, name, ...) library.find("TfLite" #name, &name);
#include "interpreter_functions.inc"
  }

#define VOXPRESS_TFLITE_FUNCTION(result, name, ...) result (*name)(__VA_ARGS__) = nullptr;
#include "interpreter_functions.inc"
};

// The first line that the interpreter says of what went wrong.
class Complaint {
 public:
  static void hear(void* self, const char* format, va_list arguments) {
    char line[400];
    std::vsnprintf(line, sizeof line, format, arguments);
    std::string& text = static_cast<Complaint*>(self)->text_;
    if (text.empty()) text = std::string(line).substr(0, std::string(line).find('\n'));
  }

  // What was heard, which is forgotten with that.
  std::string take() { return std::exchange(text_, ""); }

 private:
  std::string text_;
};

// The delegate knows no context of ours; one model at a time is opened in a process.
std::string delegate_complaint;

struct InterpreterModel final : TfliteModel {
  InterpreterModel(const SharedLibrary& library, const VoxpressEngineRequest& request)
      : TfliteModel(request.threads), runtime(library) {
    try {
      open(request);
    } catch (...) {
      close();
      throw;
    }
  }
  ~InterpreterModel() override { close(); }

  void run(const float* utterance, int64_t length, float* embedding) override {
    check_length(length);
    if (length != prepared_length) prepare(length);
    const auto bytes = static_cast<size_t>(length * row_values()) * sizeof(float);
    require(runtime.TensorCopyFromBuffer(runtime.InterpreterGetInputTensor(interpreter, 0), utterance, bytes),
            "the input");
    require(runtime.InterpreterInvoke(interpreter), "running the model");
    require(runtime.TensorCopyToBuffer(runtime.InterpreterGetOutputTensor(interpreter, 0), embedding,
                                       static_cast<size_t>(embedding_dim) * sizeof(float)),
            "the output");
  }

 private:
  [[noreturn]] void fail(const std::string& what) {
    const std::string said = complaint.take();
    refuse(said.empty() ? what + " failed" : what + " failed (" + said + ")");
  }

  void require(int32_t status, const char* what) {
    if (status != kOk) fail(what);
  }

  void open(const VoxpressEngineRequest& request) {
    runtime_version = runtime.Version();
    model = runtime.ModelCreateFromFile(request.model_path);
    if (model == nullptr) refuse("no .tflite file that this runtime reads");
    plugin = std::make_unique<DelegatePlugin>(request.delegate_library);
    delegate_complaint.clear();
    const DelegateOptions wanted(request);
    delegate = plugin->create(wanted.keys, wanted.values, wanted.count,
                              [](const char* message) { delegate_complaint = message; });
    if (delegate == nullptr) refuse("a delegate that is not created (" + delegate_complaint + ")");
    delegates = "voxpress";
    options = runtime.InterpreterOptionsCreate();
    if (options == nullptr) refuse("no memory for options");
    runtime.InterpreterOptionsSetErrorReporter(options, Complaint::hear, &complaint);
    runtime.InterpreterOptionsSetNumThreads(options, threads);
    runtime.InterpreterOptionsAddDelegate(options, delegate);
    interpreter = runtime.InterpreterCreate(model, options);
    if (interpreter == nullptr) fail("building the interpreter");
    read_endpoints();
    // Ops that nothing resolves show when memory is laid out, for which a file of ours names a length that does.
    if (read_limits(request.model_path)) prepare(rows_of(min_frames));
  }

  void read_endpoints() {
    check_counts(static_cast<size_t>(runtime.InterpreterGetInputTensorCount(interpreter)),
                 static_cast<size_t>(runtime.InterpreterGetOutputTensorCount(interpreter)));
    const void* input = runtime.InterpreterGetInputTensor(interpreter, 0);
    take_endpoints(endpoint(input), endpoint(runtime.InterpreterGetOutputTensor(interpreter, 0)));
    input_rank = runtime.TensorNumDims(input);
  }

  Endpoint endpoint(const void* tensor) const {
    Endpoint found = {runtime.TensorType(tensor) == kFloat32, runtime.TensorNumDims(tensor), {}};
    for (int32_t i = 0; i < std::min<int64_t>(found.rank, 3); ++i) found.sizes[i] = runtime.TensorDim(tensor, i);
    return found;
  }

  void prepare(int64_t length) {
    prepared_length = 0;
    const int32_t sizes[] = {1, static_cast<int32_t>(length), static_cast<int32_t>(mel_bins)};
    require(runtime.InterpreterResizeInputTensor(interpreter, 0, sizes, input_rank), "resizing");
    require(runtime.InterpreterAllocateTensors(interpreter), "laying out memory");
    const void* output = runtime.InterpreterGetOutputTensor(interpreter, 0);
    if (runtime.TensorDim(output, 1) != embedding_dim) refuse("a model whose embedding changes its size");
    prepared_length = length;
  }

  void close() {
    if (interpreter != nullptr) runtime.InterpreterDelete(interpreter);
    if (options != nullptr) runtime.InterpreterOptionsDelete(options);
    if (delegate != nullptr) plugin->destroy(delegate);
    if (model != nullptr) runtime.ModelDelete(model);
    interpreter = options = model = nullptr;
    delegate = nullptr;
  }

  InterpreterFunctions runtime;
  Complaint complaint;
  TfliteDelegate* delegate = nullptr;
  void *model = nullptr, *options = nullptr, *interpreter = nullptr;
  int32_t input_rank = 0;
  int64_t prepared_length = 0;  // frames, or samples
};

}  // namespace

VoxpressEngine* open_interpreter(const SharedLibrary& library, const VoxpressEngineRequest& request) {
  return new InterpreterModel(library, request);
}

}  // namespace voxpress::harness
