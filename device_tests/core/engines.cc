#include "engines.h"

#ifdef VOXPRESS_CORE_EXECUTORCH
#include "register.h"
#endif

namespace voxpress::core {

const std::vector<LinkedEngine>& linked_engines() {
  static const std::vector<LinkedEngine> engines = {
#ifdef VOXPRESS_CORE_EXECUTORCH
      {"pte", voxpress_executorch_engine(), voxpress_release_packed},
#endif
#ifdef VOXPRESS_CORE_TFLITE
      {"tflite", voxpress_tflite_engine(), nullptr},
#endif
  };
  return engines;
}

}  // namespace voxpress::core
