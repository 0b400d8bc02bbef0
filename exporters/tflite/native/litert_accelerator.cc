#include "litert_accelerator.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "abi.h"

// Defined in delegate.cc, called by the runtime.
extern "C" voxpress::tflite::Delegate* tflite_plugin_create_delegate(const char* const* keys, const char* const* values,
                                                                     size_t count, void (*report_error)(const char*));
extern "C" void tflite_plugin_destroy_delegate(voxpress::tflite::Delegate* delegate);

namespace voxpress::tflite {
namespace {

// LiteRT's handles are pointers, its status is an enum of C, 0 is success.
using Handle = void*;
constexpr int32_t kNotFound = -1;
constexpr int32_t kLiteRtRuntimeFailure = 3;
constexpr int32_t kLiteRtCpu = 1;  // a bit of LiteRtHwAcceleratorSet

struct ApiVersion {
  int major, minor, patch;
};

using WrapDelegate = int32_t (*)(Delegate* delegate, void (*deleter)(Delegate*), Handle* wrapper);
// Taken at registration; the accelerator's functions get nothing of ours passed in.
WrapDelegate wrap_delegate = nullptr;

constexpr size_t kMaxOptions = 8, kMaxOptionBytes = 32;

// What the delegate is created with, copied.
struct Options {
  char keys[kMaxOptions][kMaxOptionBytes], values[kMaxOptions][kMaxOptionBytes];
  size_t count;
  void (*report_error)(const char*);

  bool set(const char* const* given_keys, const char* const* given_values, size_t given) {
    if (given > kMaxOptions) return false;
    for (size_t i = 0; i < given; ++i) {
      if (!copy(given_keys[i], keys[i]) || !copy(given_values[i], values[i])) return false;
    }
    count = given;
    return true;
  }

 private:
  static bool copy(const char* text, char* room) {
    const size_t bytes = std::strlen(text) + 1;
    if (bytes > kMaxOptionBytes) return false;
    std::memcpy(room, text, bytes);
    return true;
  }
};
Options options = {};

int32_t get_name(Handle, const char** name) {
  *name = "VoxPress";
  return 0;
}

int32_t get_version(Handle, ApiVersion* version) {
  *version = {1, 0, 0};
  return 0;
}

int32_t get_hardware(Handle, int32_t* hardware) {
  *hardware = kLiteRtCpu;
  return 0;
}

int32_t compiles_itself(Handle, bool* answer) {
  *answer = true;
  return 0;
}

int32_t create_delegate(void* /*runtime_context*/, Handle /*environment*/, Handle /*accelerator*/,
                        Handle /*jit_options*/, Handle* wrapper) {
  const char *keys[kMaxOptions], *values[kMaxOptions];
  for (size_t i = 0; i < options.count; ++i) {
    keys[i] = options.keys[i];
    values[i] = options.values[i];
  }
  Delegate* delegate = tflite_plugin_create_delegate(keys, values, options.count, options.report_error);
  if (delegate == nullptr) return kLiteRtRuntimeFailure;
  const int32_t status = wrap_delegate(delegate, tflite_plugin_destroy_delegate, wrapper);
  if (status != 0) tflite_plugin_destroy_delegate(delegate);
  return status;
}

// The functions of LiteRT's C API that take part.
struct LiteRt {
  int32_t (*create)(Handle* accelerator) = nullptr;
  int32_t (*destroy)(Handle accelerator) = nullptr;
  int32_t (*set_name)(Handle, int32_t (*)(Handle, const char**)) = nullptr;
  int32_t (*set_version)(Handle, int32_t (*)(Handle, ApiVersion*)) = nullptr;
  int32_t (*set_hardware)(Handle, int32_t (*)(Handle, int32_t*)) = nullptr;
  int32_t (*set_delegate)(Handle, int32_t (*)(void*, Handle, Handle, Handle, Handle*)) = nullptr;
  int32_t (*set_compiles)(Handle, int32_t (*)(Handle, bool*)) = nullptr;
  int32_t (*add)(Handle environment, Handle accelerator, void* data, void (*release)(void*)) = nullptr;
};

template <typename Function>
bool take(void* (*find)(const char*), const char* name, Function* function) {
  *function = reinterpret_cast<Function>(find(name));
  return *function != nullptr;
}

bool find_all(void* (*find)(const char*), LiteRt* api) {
  return take(find, "LiteRtWrapDelegate", &wrap_delegate) && take(find, "LiteRtCreateAccelerator", &api->create) &&
         take(find, "LiteRtDestroyAccelerator", &api->destroy) &&
         take(find, "LiteRtSetAcceleratorGetName", &api->set_name) &&
         take(find, "LiteRtSetAcceleratorGetVersion", &api->set_version) &&
         take(find, "LiteRtSetAcceleratorGetHardwareSupport", &api->set_hardware) &&
         take(find, "LiteRtSetDelegateFunction", &api->set_delegate) &&
         take(find, "LiteRtSetIsAcceleratorDelegateResponsibleForJitCompilation", &api->set_compiles) &&
         take(find, "LiteRtRegisterAccelerator", &api->add);
}

int32_t register_with(const LiteRt& api, Handle environment) {
  Handle accelerator = nullptr;
  int32_t status = api.create(&accelerator);
  if (status != 0) return status;
  if (status == 0) status = api.set_name(accelerator, get_name);
  if (status == 0) status = api.set_version(accelerator, get_version);
  if (status == 0) status = api.set_hardware(accelerator, get_hardware);
  if (status == 0) status = api.set_delegate(accelerator, create_delegate);
  if (status == 0) status = api.set_compiles(accelerator, compiles_itself);
  if (status != 0) {
    api.destroy(accelerator);
    return status;
  }
  return api.add(environment, accelerator, nullptr, nullptr);  // takes the accelerator, whatever it answers
}

}  // namespace
}  // namespace voxpress::tflite

int32_t voxpress_register_litert_accelerator(void* environment, void* (*find)(const char* name),
                                             const char* const* keys, const char* const* values, size_t count,
                                             void (*report_error)(const char*)) {
  if (environment == nullptr || find == nullptr || !voxpress::tflite::options.set(keys, values, count)) {
    return voxpress::tflite::kNotFound;
  }
  voxpress::tflite::options.report_error = report_error;
  voxpress::tflite::LiteRt api;
  if (!voxpress::tflite::find_all(find, &api)) return voxpress::tflite::kNotFound;
  return voxpress::tflite::register_with(api, environment);
}
