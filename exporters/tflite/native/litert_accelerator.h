// The delegate as an accelerator of LiteRT 2, whose compiled models take no delegates of their callers.
#pragma once

#include <cstdint>

// Registers the delegate with an environment of LiteRT's C API (a LiteRtEnvironment), as an accelerator for the CPU
// that takes the nodes of VoxPress; models compiled for the CPU in that environment then run them. To be called once
// for each environment, before a model is compiled. `find` gives the address of a function of LiteRT by its name, for
// instance through dlsym, so that this library needs nothing of LiteRT to link.
//
// Returns 0, or a LiteRtStatus, or -1 if `find` does not know a function.
extern "C" __attribute__((visibility("default"))) int32_t
voxpress_register_litert_accelerator(void* environment, void* (*find)(const char* name));
