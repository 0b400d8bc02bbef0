// Only in the shared library: loading it is registering the ops.
#include "register.h"

namespace {
[[maybe_unused]] const int registered_on_load = voxpress_register_ops();
}  // namespace
