// What of LiteRT's C interface (2.3) the engine touches: a few numbers and struct layouts of 64-bit ABIs. Handles are
// pointers that are only passed on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace voxpress::harness::litert {

static_assert(sizeof(void*) == 8, "the struct layouts below are those of 64-bit ABIs");

constexpr int32_t kOk = 0;
constexpr int32_t kCpu = 1;
constexpr int32_t kFloat32 = 1;
constexpr int32_t kCustomOp = 32;

struct Layout {
  uint32_t rank : 7;
  uint32_t has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};
static_assert(sizeof(Layout) == 68 && offsetof(Layout, dimensions) == 4);

struct RankedType {
  int32_t element;
  Layout layout;
};
static_assert(sizeof(RankedType) == 72);

}  // namespace voxpress::harness::litert
