#include "prepared/settings.h"

#include <cstdlib>
#include <cstring>

#include "base/isa.h"

namespace voxpress {

Status apply_settings() { return select_isa(std::getenv("VOXPRESS_KERNELS")); }

bool low_memory_wanted() {
  const char* value = std::getenv("VOXPRESS_LOW_MEMORY");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

}  // namespace voxpress
