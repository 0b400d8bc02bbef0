// ExecuTorch behind engine.h: the program is mapped, not read; activations and scratch are pages that cost nothing
// until they are used, so that a model planned for long utterances stays small on short ones.
#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/flat_tensor/flat_tensor_data_map.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine_model.h"
#include "register.h"

// The wheel ships the thread pool but not its header; this declares the two members that are called, as they are in
// ExecuTorch's extension/threadpool/threadpool.h. They are not virtual, so nothing depends on the class's layout.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using ::executorch::extension::FlatTensorDataMap;
using ::executorch::extension::MallocMemoryAllocator;
using ::executorch::extension::MmapDataLoader;
using ::executorch::runtime::Error;
using ::executorch::runtime::EValue;
using ::executorch::runtime::HierarchicalAllocator;
using ::executorch::runtime::MemoryAllocator;
using ::executorch::runtime::MemoryManager;
using ::executorch::runtime::Method;
using ::executorch::runtime::MethodMeta;
using ::executorch::runtime::Program;
using ::executorch::runtime::Result;
using ::executorch::runtime::Span;
using ::executorch::runtime::TensorInfo;

// The runtime explains failures only in its log; its first line about an error goes into our error text, for what comes
// after it only says which calls were given up. Each thread has its own: models may run side by side.
thread_local std::string first_log_line;
thread_local bool listening = false;
// Where the log of others goes that share the runtime with us in their process.
pal_emit_log_message_method log_of_others = nullptr;

// While one lives, this thread's log is kept: from an empty one on.
struct Listening {
  Listening() {
    first_log_line.clear();
    listening = true;
  }
  ~Listening() { listening = false; }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;
};

void keep_log_line(et_timestamp_t timestamp, et_pal_log_level_t level, const char* file, const char* function,
                   size_t line, const char* message, size_t length) {
  if (!listening) {
    if (log_of_others != nullptr) log_of_others(timestamp, level, file, function, line, message, length);
    return;
  }
  const bool is_error = level == et_pal_log_level_t::kError || level == et_pal_log_level_t::kFatal;
  if (is_error && first_log_line.empty()) first_log_line.assign(message, length);
}

void start_runtime() {
  static const bool started = [] {
    ::executorch::runtime::runtime_init();
    log_of_others = ::executorch::runtime::get_pal_impl()->emit_log_message;
    ::executorch::runtime::register_pal(::executorch::runtime::PalImpl::create(keep_log_line, __FILE__));
    voxpress_register_ops();
    return true;
  }();
  static_cast<void>(started);
}

[[noreturn]] void refuse(const std::string& what, Error error) {
  const std::string detail = first_log_line.empty() ? "" : " (" + first_log_line + ")";
  throw std::runtime_error(what + ": " + ::executorch::runtime::to_string(error) + detail);
}

void require(Error error, const char* what) {
  if (error != Error::Ok) refuse(what, error);
}

template <typename T>
T require(Result<T> result, const char* what) {
  if (!result.ok()) refuse(what, result.error());
  return std::move(*result);
}

// Zeroed memory straight from the system: a page becomes resident when it is first written.
class Pages {
 public:
  explicit Pages(size_t bytes) : bytes_(std::max<size_t>(bytes, 1)) {
    data_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) throw std::runtime_error("no memory for " + std::to_string(bytes_) + " bytes");
  }
  ~Pages() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  Pages(Pages&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  size_t size() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Scratch for one kernel call at a time. It grows to the largest call and is then reused, so that timed runs neither
// allocate nor fault pages in.
class ScratchAllocator : public MemoryAllocator {
 public:
  ScratchAllocator() : MemoryAllocator(0, nullptr) {}

  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    constexpr size_t kPage = 4096;
    if (alignment == 0 || alignment > kPage || (alignment & (alignment - 1)) != 0) return nullptr;
    const size_t begin = (used_ + alignment - 1) / alignment * alignment;
    const size_t capacity = blocks_.empty() ? 0 : blocks_.back().size();
    if (begin <= capacity && size <= capacity - begin) {
      used_ = begin + size;
      return blocks_.back().data() + begin;
    }
    try {
      blocks_.emplace_back(size);
    } catch (const std::exception&) {
      return nullptr;
    }
    used_ = size;
    return blocks_.back().data();
  }

  // Keeps one block as large as all of them together, so that the next round fits into it.
  void reset() override {
    used_ = 0;
    if (blocks_.size() < 2) return;
    size_t total = 0;
    for (const Pages& block : blocks_) total += block.size();
    blocks_.clear();
    allocate(total);
    used_ = 0;
  }

 private:
  std::vector<Pages> blocks_;
  size_t used_ = 0;
};

// A method of a program with the memory it runs in.
class LoadedMethod {
 public:
  LoadedMethod(const Program& program, const char* name, const FlatTensorDataMap* weights = nullptr) {
    const MethodMeta meta = require(program.method_meta(name), name);
    for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      const int64_t bytes = require(meta.memory_planned_buffer_size(i), name);
      if (bytes < 0) throw std::runtime_error("a memory plan with negative sizes");
      buffers_.emplace_back(static_cast<size_t>(bytes));
      spans_.push_back({buffers_.back().data(), buffers_.back().size()});
    }
    planned_ = std::make_unique<HierarchicalAllocator>(Span<Span<uint8_t>>(spans_.data(), spans_.size()));
    memory_ = std::make_unique<MemoryManager>(&structures_, planned_.get(), &scratch_);
    method_ = std::make_unique<Method>(require(program.load_method(name, memory_.get(), nullptr, weights), name));
  }

  Method& operator*() { return *method_; }
  Method* operator->() { return method_.get(); }

 private:
  std::vector<Pages> buffers_;
  std::vector<Span<uint8_t>> spans_;
  std::unique_ptr<HierarchicalAllocator> planned_;
  MallocMemoryAllocator structures_;
  ScratchAllocator scratch_;
  std::unique_ptr<MemoryManager> memory_;
  std::unique_ptr<Method> method_;
};

// The answer of a method without inputs that gives one integer; `missing` if the program has none of that name.
int64_t constant_or(const Program& program, const char* name, int64_t missing) {
  if (!program.method_meta(name).ok()) return missing;
  LoadedMethod method(program, name);
  require(method->execute(), name);
  if (method->outputs_size() != 1 || !method->get_output(0).isInt()) {
    throw std::runtime_error(std::string(name) + ": the method gives no integer");
  }
  return method->get_output(0).toInt();
}

// Weights that lie in a file beside the program, mapped; `map` is null if the program holds its own.
class Weights {
 public:
  Weights(const Program& program, const std::string& model_path) {
    constexpr char kMethod[] = "weights_file";
    if (!program.method_meta(kMethod).ok()) return;
    LoadedMethod method(program, kMethod);
    require(method->execute(), kMethod);
    if (method->outputs_size() != 1 || !method->get_output(0).isString()) {
      throw std::runtime_error("weights_file: the method gives no text");
    }
    const auto text = method->get_output(0).toString();
    const std::string name(text.data(), text.size());
    if (name.empty() || name.find('/') != std::string::npos)
      throw std::runtime_error("weights_file: no bare file name");
    path_ = model_path.substr(0, model_path.find_last_of('/') + 1) + name;
    loader_ = std::make_unique<MmapDataLoader>(
        require(MmapDataLoader::from(path_.c_str(), MmapDataLoader::MlockConfig::NoMlock), "the weights file"));
    map_ = std::make_unique<FlatTensorDataMap>(require(FlatTensorDataMap::load(loader_.get()), "the weights file"));
  }

  const FlatTensorDataMap* map() const { return map_.get(); }

 private:
  std::string path_;
  std::unique_ptr<MmapDataLoader> loader_;
  std::unique_ptr<FlatTensorDataMap> map_;
};

int32_t set_threads(int32_t threads) {
  voxpress_set_threads(threads);
  auto* pool = ::executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) return 1;
  if (pool->get_thread_count() != static_cast<size_t>(threads)) {
    pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
  }
  return static_cast<int32_t>(pool->get_thread_count());
}

std::string delegate_names(const MethodMeta& meta) {
  std::vector<std::string> names;
  for (size_t i = 0; i < meta.num_backends(); ++i) names.emplace_back(require(meta.get_backend_name(i), "delegate"));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ",") + name;
  return text;
}

struct ExecutorchModel final : VoxpressEngine {
  ExecutorchModel(const char* model_path, int32_t wanted_threads)
      : VoxpressEngine("executorch", VOXPRESS_EXECUTORCH_VERSION, set_threads(wanted_threads)),
        path(model_path),
        loader(require(MmapDataLoader::from(path.c_str(), MmapDataLoader::MlockConfig::NoMlock), "the file")),
        program(require(Program::load(&loader, Program::Verification::InternalConsistency), "the program")),
        weights(program, path),
        forward(program, "forward", weights.map()) {
    const MethodMeta meta = forward->method_meta();
    delegates = delegate_names(meta);
    if (meta.num_inputs() != 1 || meta.num_outputs() != 1) {
      throw std::runtime_error("forward takes " + std::to_string(meta.num_inputs()) + " inputs and gives " +
                               std::to_string(meta.num_outputs()) + " outputs, not one features and one embedding");
    }
    const TensorInfo input = require(meta.input_tensor_meta(0), "the input");
    const TensorInfo output = require(meta.output_tensor_meta(0), "the output");
    const auto float_type = ::executorch::aten::ScalarType::Float;
    const size_t rank = input.sizes().size();
    if (input.scalar_type() != float_type || (rank != 2 && rank != 3) || input.sizes()[0] < 1) {
      throw std::runtime_error("forward's input is no float [N, frames, mel] or [N, samples]");
    }
    if (output.scalar_type() != float_type) throw std::runtime_error("forward's output is no float");
    mel_bins = rank == 3 ? input.sizes()[2] : 0;
    max_length = input.sizes()[1];
    embedding_dim = 1;
    for (const int32_t size : output.sizes()) embedding_dim *= size;
    embedding_dim /= input.sizes()[0];  // planned for as many utterances; one is run at a time
    // A program exported elsewhere does not say its limits; its input's planned size is one.
    max_frames = std::min<int64_t>(constant_or(program, "max_frames", max_length), max_length);
    min_frames = constant_or(program, "min_frames", 1);
    chunk_frames = constant_or(program, "chunk_frames", 0);
    if (mel_bins == 0) {
      window_samples = constant_or(program, "window_samples", 1);
      shift_samples = constant_or(program, "shift_samples", 1);
    }
    if (min_frames < 1 || chunk_frames < 0 || chunk_frames > max_frames || window_samples < 1 || shift_samples < 1) {
      throw std::runtime_error("the model's limits do not fit together");
    }
    min_length = mel_bins == 0 ? (min_frames - 1) * shift_samples + window_samples : min_frames;
    if (mel_bins != 0) max_length = max_frames;
  }

  size_t kernels_used(char* text, size_t size) const override { return voxpress_kernels_used(text, size); }

  VoxpressMemoryUse memory_use() const override {
    VoxpressMemoryUse use = {};
    voxpress_memory_use(&use.weight_bytes, &use.scratch_bytes);
    return use;
  }

  void run(const float* utterance, int64_t length, float* embedding) override {
    const Listening listening_here;
    if (length < min_length || length > max_length) {
      throw std::runtime_error("the model takes " + std::to_string(min_length) + " to " + std::to_string(max_length) +
                               (mel_bins == 0 ? " samples" : " frames"));
    }
    using ::executorch::aten::SizesType;
    const auto mel = static_cast<SizesType>(mel_bins == 0 ? 1 : mel_bins);
    SizesType sizes[] = {1, static_cast<SizesType>(length), mel};
    ::executorch::aten::DimOrderType order[] = {0, 1, 2};
    ::executorch::aten::StridesType strides[] = {static_cast<SizesType>(length) * mel, mel, 1};
    ::executorch::aten::TensorImpl input(::executorch::aten::ScalarType::Float, mel_bins == 0 ? 2 : 3, sizes,
                                         const_cast<float*>(utterance), order, strides);
    require(forward->set_input(EValue(::executorch::aten::Tensor(&input)), 0), "the input");
    require(forward->execute(), "forward");
    const EValue& output = forward->get_output(0);
    if (!output.isTensor() || output.toTensor().numel() != embedding_dim) {
      throw std::runtime_error("forward did not give " + std::to_string(embedding_dim) + " values");
    }
    std::memcpy(embedding, output.toTensor().const_data_ptr<float>(),
                static_cast<size_t>(embedding_dim) * sizeof(float));
  }

  std::string path;  // the loader keeps the pointer
  MmapDataLoader loader;
  Program program;
  Weights weights;
  LoadedMethod forward;
  int64_t min_length = 0, max_length = 0;  // frames, or samples
};

VoxpressEngine* open_model(const VoxpressEngineRequest* request, VoxpressEngineError* error) {
  start_runtime();
  const Listening listening_here;
  if (request->low_memory != 0) voxpress_set_low_memory(1);
  return voxpress::harness::opened([&] { return new ExecutorchModel(request->model_path, request->threads); }, error);
}

}  // namespace

const VoxpressEngineApi* voxpress_executorch_engine(void) {
  static const VoxpressEngineApi api = voxpress::harness::engine_api(open_model);
  return &api;
}
