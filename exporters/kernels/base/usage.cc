#include "base/usage.h"

#include <atomic>
#include <cstring>

namespace voxpress {
namespace {

constexpr const char* kNames[] = {
#define VOXPRESS_CONV2D_KERNEL(name) #name,
#define VOXPRESS_CONV2DU8_KERNEL(name) #name,
#define VOXPRESS_STATSPOOL_KERNEL(name) #name,
#define VOXPRESS_FBANK_KERNEL(name) #name,
#include "kernels.inc"
};
constexpr uint32_t kCount = static_cast<uint32_t>(Kernel::kCount);
static_assert(kCount <= 64, "the mask holds 64 kernels");

std::atomic<uint64_t> used_mask{0};

}  // namespace

const char* kernel_name(Kernel kernel) { return kernel < Kernel::kCount ? kNames[static_cast<uint32_t>(kernel)] : ""; }

void mark_used(Kernel kernel) {
  used_mask.fetch_or(uint64_t{1} << static_cast<uint32_t>(kernel), std::memory_order_relaxed);
}

size_t kernels_used(char* text, size_t size) {
  const uint64_t mask = used_mask.load(std::memory_order_relaxed);
  size_t length = 0;
  const auto append = [&](const char* part) {
    const size_t part_length = std::strlen(part);
    if (length + 1 < size) {
      const size_t room = size - 1 - length;
      std::memcpy(text + length, part, part_length < room ? part_length : room);
    }
    length += part_length;
  };
  for (uint32_t kernel = 0; kernel < kCount; ++kernel) {
    if ((mask >> kernel & 1) == 0) continue;
    if (length > 0) append(",");
    append(kNames[kernel]);
  }
  if (size > 0) text[length < size ? length : size - 1] = '\0';
  return length;
}

}  // namespace voxpress
