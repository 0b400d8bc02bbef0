/* The delegate with VoxPress's ops, see exporters/tflite/native/delegate.cc: a TfLiteDelegate behind a plain pointer,
 * so that nothing of TFLite is needed here. */
#ifndef VOXPRESS_TFLITE_DELEGATE_H
#define VOXPRESS_TFLITE_DELEGATE_H

#include <stddef.h>

#ifdef __clang__
#define VOXPRESS_NULLABLE_POINTER _Nullable
#else
#define VOXPRESS_NULLABLE_POINTER
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* `count` options by key and value, none of which is needed; `report_error` hears of a bad one. Null on failure. */
void* VOXPRESS_NULLABLE_POINTER tflite_plugin_create_delegate(
    const char* VOXPRESS_NULLABLE_POINTER const* VOXPRESS_NULLABLE_POINTER keys,
    const char* VOXPRESS_NULLABLE_POINTER const* VOXPRESS_NULLABLE_POINTER values, size_t count,
    void (*VOXPRESS_NULLABLE_POINTER report_error)(const char* VOXPRESS_NULLABLE_POINTER));

/* After the interpreters that use it. */
void tflite_plugin_destroy_delegate(void* VOXPRESS_NULLABLE_POINTER delegate);

#ifdef __cplusplus
}
#endif

#endif
