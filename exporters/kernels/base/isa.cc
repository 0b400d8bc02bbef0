#include "base/isa.h"

#include <atomic>
#include <cstring>

namespace voxpress {
namespace {

constexpr Isa kWidestFirst[] = {Isa::kAvx512, Isa::kAvx2, Isa::kNeon, Isa::kPortable};

Isa widest_isa() {
  for (const Isa isa : kWidestFirst) {
    if (isa_available(isa)) return isa;
  }
  return Isa::kPortable;
}

constexpr int32_t kUndecided = -1;
std::atomic<int32_t> selected{kUndecided};

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "";
}

bool isa_available(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return true;
    case Isa::kNeon:
#if defined(__aarch64__)
      return true;
#else
      return false;
#endif
    case Isa::kAvx2:
#if defined(__x86_64__)
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
      return false;
#endif
    case Isa::kAvx512:
#if defined(__x86_64__)
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
      return false;
#endif
  }
  return false;
}

Isa selected_isa() {
  int32_t isa = selected.load(std::memory_order_relaxed);
  if (isa == kUndecided) {
    isa = static_cast<int32_t>(widest_isa());
    selected.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

Status select_isa(const char* name) {
  if (name == nullptr || name[0] == '\0') {
    selected.store(static_cast<int32_t>(widest_isa()), std::memory_order_relaxed);
    return Status::kOk;
  }
  for (const Isa isa : kWidestFirst) {
    if (std::strcmp(name, isa_name(isa)) != 0) continue;
    if (!isa_available(isa)) return Status::kBadIsa;
    selected.store(static_cast<int32_t>(isa), std::memory_order_relaxed);
    return Status::kOk;
  }
  return Status::kBadIsa;
}

}  // namespace voxpress
