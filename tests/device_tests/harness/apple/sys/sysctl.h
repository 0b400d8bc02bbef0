// Of Apple's header of this name, what the harness and the kernels use, as its manual page declares it.
#pragma once

#include <stddef.h>

extern "C" int sysctlbyname(const char* name, void* old_value, size_t* old_size, void* new_value, size_t new_size);
