// Runs a .tflite through LiteRT's C API with our delegate as an accelerator, as an app in C++ would; see
// test_litert_capi.py. It says the embedding's bytes in hexadecimal, one line for each length.
//
//   litert_capi LIBLITERT DELEGATE MODEL REGISTER(0|1) WIDTH LENGTH...
//
// The input is [1, LENGTH, WIDTH] or, for WIDTH 0, [1, LENGTH]; value i of it is ((i * 7919) % 2001 - 1000) / 1000.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Handle = void*;

// As LiteRT 2.3's C headers lay them out on 64-bit ABIs.
struct Layout {
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};
struct TensorType {
  int32_t element_type;
  Layout layout;
};
static_assert(sizeof(TensorType) == 72);
constexpr int32_t kFloat32 = 1, kHostMemory = 1, kCpu = 1, kRead = 0, kWrite = 1;

Handle litert_library = nullptr;

void* find(const char* name) { return dlsym(litert_library, name); }

template <typename Function>
Function function(const char* name) {
  void* const found = find(name);
  if (found == nullptr) {
    std::fprintf(stderr, "libLiteRt.so has no %s\n", name);
    std::exit(2);
  }
  return reinterpret_cast<Function>(found);
}

void require(int32_t status, const char* what) {
  if (status == 0) return;
  std::fprintf(stderr, "%s: status %d\n", what, status);
  std::exit(3);
}

Handle buffer_of(Handle environment, const std::vector<int32_t>& dims, size_t count) {
  TensorType type = {};
  type.element_type = kFloat32;
  type.layout.rank = static_cast<unsigned int>(dims.size());
  for (size_t i = 0; i < dims.size(); ++i) type.layout.dimensions[i] = dims[i];
  Handle buffer = nullptr;
  require(function<int32_t (*)(Handle, int32_t, const TensorType*, size_t, Handle*)>("LiteRtCreateManagedTensorBuffer")(
              environment, kHostMemory, &type, count * sizeof(float), &buffer),
          "LiteRtCreateManagedTensorBuffer");
  return buffer;
}

float* lock(Handle buffer, int32_t mode) {
  void* address = nullptr;
  require(function<int32_t (*)(Handle, void**, int32_t)>("LiteRtLockTensorBuffer")(buffer, &address, mode),
          "LiteRtLockTensorBuffer");
  return static_cast<float*>(address);
}

void unlock(Handle buffer) {
  require(function<int32_t (*)(Handle)>("LiteRtUnlockTensorBuffer")(buffer), "LiteRtUnlockTensorBuffer");
}

void run(Handle environment, Handle model, const std::vector<int32_t>& dims) {
  require(function<int32_t (*)(Handle, size_t, size_t, const int*, size_t)>("LiteRtCompiledModelResizeInputTensor")(
              model, 0, 0, dims.data(), dims.size()),
          "LiteRtCompiledModelResizeInputTensor");
  size_t count = 1;
  for (const int32_t size : dims) count *= static_cast<size_t>(size);
  Layout output_layout = {};
  require(function<int32_t (*)(Handle, size_t, size_t, Layout*, bool)>("LiteRtGetCompiledModelOutputTensorLayouts")(
              model, 0, 1, &output_layout, true),
          "LiteRtGetCompiledModelOutputTensorLayouts");
  const int32_t embedding = output_layout.dimensions[1];
  Handle input = buffer_of(environment, dims, count);
  Handle output = buffer_of(environment, {1, embedding}, static_cast<size_t>(embedding));
  float* values = lock(input, kWrite);
  for (size_t i = 0; i < count; ++i) values[i] = (static_cast<float>((i * 7919) % 2001) - 1000.0f) / 1000.0f;
  unlock(input);
  require(function<int32_t (*)(Handle, size_t, size_t, Handle*, size_t, Handle*)>("LiteRtRunCompiledModel")(
              model, 0, 1, &input, 1, &output),
          "LiteRtRunCompiledModel");
  const auto* bytes = reinterpret_cast<const unsigned char*>(lock(output, kRead));
  for (size_t i = 0; i < sizeof(float) * static_cast<size_t>(embedding); ++i) std::printf("%02x", bytes[i]);
  std::printf("\n");
  unlock(output);
  const auto destroy = function<void (*)(Handle)>("LiteRtDestroyTensorBuffer");
  destroy(input);
  destroy(output);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) return 2;
  litert_library = dlopen(argv[1], RTLD_NOW);
  Handle delegate = dlopen(argv[2], RTLD_NOW);
  if (litert_library == nullptr || delegate == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  Handle environment = nullptr, file = nullptr, options = nullptr, model = nullptr;
  require(function<int32_t (*)(int, const void*, Handle*)>("LiteRtCreateEnvironment")(0, nullptr, &environment),
          "LiteRtCreateEnvironment");
  if (std::string(argv[4]) == "1") {
    using Register = int32_t (*)(void*, void* (*)(const char*), const char* const*, const char* const*, size_t,
                                 void (*)(const char*));
    const auto add = reinterpret_cast<Register>(dlsym(delegate, "voxpress_register_litert_accelerator"));
    require(add == nullptr ? -1 : add(environment, find, nullptr, nullptr, 0, nullptr),
            "voxpress_register_litert_accelerator");
  }
  require(function<int32_t (*)(Handle, const char*, Handle*)>("LiteRtCreateModelFromFile")(environment, argv[3], &file),
          "LiteRtCreateModelFromFile");
  require(function<int32_t (*)(Handle*)>("LiteRtCreateOptions")(&options), "LiteRtCreateOptions");
  require(function<int32_t (*)(Handle, int32_t)>("LiteRtSetOptionsHardwareAccelerators")(options, kCpu),
          "LiteRtSetOptionsHardwareAccelerators");
  require(function<int32_t (*)(Handle, Handle, Handle, Handle*)>("LiteRtCreateCompiledModel")(environment, file,
                                                                                              options, &model),
          "LiteRtCreateCompiledModel");
  const int32_t width = std::atoi(argv[5]);
  for (int i = 6; i < argc; ++i) {
    std::vector<int32_t> dims = {1, std::atoi(argv[i])};
    if (width > 0) dims.push_back(width);
    run(environment, model, dims);
  }
  function<void (*)(Handle)>("LiteRtDestroyCompiledModel")(model);
  function<void (*)(Handle)>("LiteRtDestroyOptions")(options);
  function<void (*)(Handle)>("LiteRtDestroyModel")(file);
  function<void (*)(Handle)>("LiteRtDestroyEnvironment")(environment);
  return 0;
}
