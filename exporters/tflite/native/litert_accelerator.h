// The delegate as an accelerator of LiteRT 2, whose compiled models take no delegates of their callers.
#pragma once

#include <cstddef>
#include <cstdint>

// Registers the delegate with an environment of LiteRT's C API (a LiteRtEnvironment), as an accelerator for the CPU
// that takes the nodes of VoxPress; models compiled for the CPU in that environment then run them. To be called once
// for each environment, before a model is compiled. `find` gives the address of a function of LiteRT by its name, for
// instance through dlsym, so that this library needs nothing of LiteRT to link. The options, and whom to tell if they
// are none, are those of tflite_plugin_create_delegate; they hold for every environment of the process from then on.
//
// Returns 0, or a LiteRtStatus, or -1 if `find` does not know a function or there are more than 8 options.
extern "C" __attribute__((visibility("default"))) int32_t
voxpress_register_litert_accelerator(void* environment, void* (*find)(const char* name), const char* const* keys,
                                     const char* const* values, size_t count, void (*report_error)(const char*));
