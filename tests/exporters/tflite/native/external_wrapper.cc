// A delegate that loads ours as TFLite's own external delegate does, which stock benchmark_model uses behind
// --external_delegate_path: dlopen with local symbols, options as words, no error callback, and a delegate of its own
// in front whose prepare calls ours with ours, so that the interpreter holds one delegate and nodes are given to
// another. See test_external_delegate.py. VOXPRESS_INNER names our library, VOXPRESS_OPTIONS is "key:value;key:value".
#include <dlfcn.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "abi.h"

namespace {

using voxpress::tflite::Context;
using voxpress::tflite::Delegate;

struct Wrapper {
  Delegate outer = {};
  Delegate* inner = nullptr;
  void* library = nullptr;
  void (*destroy)(Delegate*) = nullptr;
};

int32_t prepare(Context* context, Delegate* outer) {
  Delegate* const inner = static_cast<Wrapper*>(outer->data)->inner;
  return inner->prepare(context, inner);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) Delegate* tflite_plugin_create_delegate(const char* const*,
                                                                                          const char* const*, size_t,
                                                                                          void (*)(const char*)) {
  const char* const path = std::getenv("VOXPRESS_INNER");
  const char* const options = std::getenv("VOXPRESS_OPTIONS");
  void* const library = path == nullptr ? nullptr : dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  using Create = Delegate* (*)(const char* const*, const char* const*, size_t, void (*)(const char*));
  const auto create = reinterpret_cast<Create>(dlsym(library, "tflite_plugin_create_delegate"));
  const auto destroy = reinterpret_cast<void (*)(Delegate*)>(dlsym(library, "tflite_plugin_destroy_delegate"));
  if (create == nullptr || destroy == nullptr) return nullptr;

  std::vector<std::string> words;
  std::istringstream text(options == nullptr ? "" : options);
  for (std::string pair; std::getline(text, pair, ';');) {
    const size_t colon = pair.find(':');
    words.push_back(pair.substr(0, colon));
    words.push_back(colon == std::string::npos ? "" : pair.substr(colon + 1));
  }
  std::vector<const char*> keys, values;
  for (size_t i = 0; i < words.size(); i += 2) {
    keys.push_back(words[i].c_str());
    values.push_back(words[i + 1].c_str());
  }
  Delegate* const inner = create(keys.data(), values.data(), keys.size(), nullptr);
  if (inner == nullptr) return nullptr;
  auto* const wrapper = new Wrapper;
  wrapper->inner = inner;
  wrapper->library = library;
  wrapper->destroy = destroy;
  wrapper->outer.data = wrapper;
  wrapper->outer.prepare = prepare;
  wrapper->outer.copy_from_buffer_handle = inner->copy_from_buffer_handle;
  wrapper->outer.copy_to_buffer_handle = inner->copy_to_buffer_handle;
  wrapper->outer.free_buffer_handle = inner->free_buffer_handle;
  wrapper->outer.flags = inner->flags;
  return &wrapper->outer;
}

extern "C" __attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(Delegate* outer) {
  if (outer == nullptr) return;
  auto* const wrapper = static_cast<Wrapper*>(outer->data);
  wrapper->destroy(wrapper->inner);
  dlclose(wrapper->library);
  delete wrapper;
}
