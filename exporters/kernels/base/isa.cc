#include "base/isa.h"

#include <atomic>
#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace voxpress {
namespace {

constexpr Isa kWidestFirst[] = {Isa::kAvx512Vnni, Isa::kAvx512, Isa::kAvx2, Isa::kNeonDot, Isa::kNeon, Isa::kPortable};

Isa widest_isa() {
  for (const Isa isa : kWidestFirst) {
    if (isa_available(isa)) return isa;
  }
  return Isa::kPortable;
}

bool has_dot_products() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotProducts = 1UL << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  int found = 0;
  size_t bytes = sizeof(found);
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &found, &bytes, nullptr, 0) == 0 && found != 0;
#else
  return false;
#endif
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
    case Isa::kNeonDot:
      return "neondot";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
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
    case Isa::kNeonDot:
      return has_dot_products();
    case Isa::kAvx2:
#if defined(__x86_64__)
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
      return false;
#endif
    case Isa::kAvx512:
#if defined(__x86_64__)
      return __builtin_cpu_supports("avx512f") && isa_available(Isa::kAvx2);
#else
      return false;
#endif
    case Isa::kAvx512Vnni:
#if defined(__x86_64__)
      return isa_available(Isa::kAvx512) && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vnni");
#else
      return false;
#endif
  }
  return false;
}

bool isa_includes(Isa level, Isa isa) {
  if (isa == Isa::kPortable) return true;
  const bool arm = level == Isa::kNeon || level == Isa::kNeonDot;
  return static_cast<int32_t>(isa) <= static_cast<int32_t>(level) && (arm || isa >= Isa::kAvx2);
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
