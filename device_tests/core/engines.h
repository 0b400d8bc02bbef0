// The engines that this build holds.
#pragma once

#include <string>
#include <vector>

#include "engine.h"

namespace voxpress::core {

struct LinkedEngine {
  const char* format;  // of the files it runs: "pte" or "tflite"
  const VoxpressEngineApi* api;
  size_t (*release_packed)();  // frees weights that are kept packed for models that were closed; null: there are none
};

// In the order in which they are tried where an app does not say.
const std::vector<LinkedEngine>& linked_engines();

}  // namespace voxpress::core
