#include "register.h"

#include <executorch/runtime/kernel/operator_registry.h>

#include <cstring>

#include "adapters.h"
#include "base/usage.h"
#include "fbank_adapter.h"
#include "prepared/memory_use.h"

namespace {

// The runtime aborts when a name is registered twice, so ask first: another library may carry these ops too.
bool is_registered(const char* name) {
  for (const auto& kernel : ::executorch::runtime::get_registered_kernels()) {
    if (std::strcmp(kernel.name_, name) == 0) return true;
  }
  return false;
}

}  // namespace

int voxpress_register_ops(void) {
  using ::executorch::runtime::Kernel;
  const Kernel kernels[] = {
      Kernel("voxpress::conv2d.out", voxpress::pte::conv2d_out),
      Kernel("voxpress::conv2d_u8.out", voxpress::pte::conv2d_u8_out),
      Kernel("voxpress::fbank.out", voxpress::pte::fbank_out),
      Kernel("voxpress::stats_pool.out", voxpress::pte::stats_pool_out),
  };
  int registered = 0;
  for (const Kernel& kernel : kernels) {
    if (is_registered(kernel.name_)) continue;
    if (::executorch::runtime::register_kernel(kernel) == ::executorch::runtime::Error::Ok) ++registered;
  }
  return registered;
}

size_t voxpress_release_packed(void) { return voxpress::pte::packed_store().clear(); }

void voxpress_set_low_memory(int low_memory) { voxpress::pte::set_low_memory(low_memory != 0); }

void voxpress_set_threads(int threads) { voxpress::pte::set_threads(threads); }

size_t voxpress_kernels_used(char* text, size_t size) { return voxpress::kernels_used(text, size); }

void voxpress_memory_use(size_t* weight_bytes, size_t* scratch_bytes) {
  voxpress::memory_use(weight_bytes, scratch_bytes);
}
