#include "prepared/settings.h"

#include <cstdlib>
#include <cstring>

#include "base/isa.h"
#include "prepared/thread_pool.h"

namespace voxpress {

Status apply_settings() { return select_isa(std::getenv("VOXPRESS_KERNELS")); }

bool low_memory_wanted() {
  const char* value = std::getenv("VOXPRESS_LOW_MEMORY");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

int32_t threads_wanted(int32_t runtime_threads) {
  const char* value = std::getenv("VOXPRESS_THREADS");
  const long wanted = value == nullptr ? 0 : std::strtol(value, nullptr, 10);
  if (wanted >= 1 && wanted <= kMaxThreads) return static_cast<int32_t>(wanted);
  return runtime_threads < 1 ? 1 : runtime_threads;
}

}  // namespace voxpress
