// .tflite files behind engine.h: their runtime is loaded at run time, so that they run on the library that apps ship,
// without any header or symbol of it at build time, and its interface is the one that the library has.
#include <memory>
#include <string>

#include "tflite_model.h"

namespace {

using voxpress::harness::SharedLibrary;

// Where nobody says which: LiteRT 1 as Android's apps have it, LiteRT 2, the interpreter's own C library.
constexpr const char* kKnownNames[] = {"libtensorflowlite_jni.so", "libLiteRt.so", "libtensorflowlite_c.so"};

SharedLibrary runtime_of(const VoxpressEngineRequest& request) {
  if (request.runtime_library != nullptr && *request.runtime_library != '\0') {
    return SharedLibrary(request.runtime_library);
  }
  std::string reasons;
  for (const char* name : kKnownNames) {
    try {
      return SharedLibrary(name);
    } catch (const std::runtime_error& missing) {
      reasons += (reasons.empty() ? "" : ", ") + std::string(name) + ": " + missing.what();
    }
  }
  throw std::runtime_error("no runtime for .tflite files (" + reasons + ")");
}

VoxpressEngine* open_model(const VoxpressEngineRequest* request, VoxpressEngineError* error) {
  return voxpress::harness::opened(
      [&] {
        const SharedLibrary library = runtime_of(*request);
        return library.has("LiteRtCreateCompiledModel") ? voxpress::harness::open_compiled_model(library, *request)
                                                        : voxpress::harness::open_interpreter(library, *request);
      },
      error);
}

}  // namespace

const VoxpressEngineApi* voxpress_tflite_engine(void) {
  static const VoxpressEngineApi api = voxpress::harness::engine_api(open_model);
  return &api;
}
