// The C structs of TFLite's runtime, as laid out on 64-bit ABIs in tflite-runtime 2.14 to LiteRT 2.3: only what a
// delegate touches has a meaning here, the rest is space. The delegate checks at run time that a runtime agrees (see
// layout_ok).
#pragma once

#include <cstddef>
#include <cstdint>

namespace voxpress::tflite {

static_assert(sizeof(void*) == 8, "the struct layouts below are those of 64-bit ABIs");

enum StatusCode : int32_t { kTfOk = 0, kTfError = 1 };
enum TensorType : int32_t { kTfFloat32 = 1, kTfUint8 = 3 };
enum AllocationType : int32_t { kTfMmapRo = 1 };
constexpr int32_t kOptionalTensor = -1;
constexpr int64_t kAllowDynamicTensors = 1;  // without it the runtime calls custom ops unresolved before asking us

struct IntArray {
  int32_t size;
  int32_t data[1];  // `size` of them
};

struct Tensor {
  int32_t type;
  void* data;
  IntArray* dims;
  float scale;  // these two: of a u8 tensor as the file says, 0 and 0 if it does not
  int32_t zero;
  int32_t allocation_type;
  size_t bytes;
  unsigned char rest[64];
};
static_assert(sizeof(Tensor) == 112 && offsetof(Tensor, scale) == 24 && offsetof(Tensor, bytes) == 40);

struct Node {
  IntArray* inputs;
  IntArray* outputs;
  IntArray* intermediates;
  IntArray* temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int32_t custom_initial_data_size;
  void* delegate;
  bool might_have_side_effect;
};
static_assert(sizeof(Node) == 80);

struct Context;
struct Delegate;

struct Registration {
  void* (*init)(Context* context, const char* buffer, size_t length);
  void (*free)(Context* context, void* buffer);
  int32_t (*prepare)(Context* context, Node* node);
  int32_t (*invoke)(Context* context, Node* node);
  const char* (*profiling_string)(const Context* context, const Node* node);
  int32_t builtin_code;
  const char* custom_name;
  int32_t version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
};
static_assert(sizeof(Registration) == 88 && offsetof(Registration, custom_name) == 48);

struct Context {
  size_t tensors_size;
  int32_t (*get_execution_plan)(Context* context, IntArray** plan);
  Tensor* tensors;
  void* impl;
  int32_t (*resize_tensor)(Context* context, Tensor* tensor, IntArray* new_size);
  void (*report_error)(Context* context, const char* format, ...);
  int32_t (*add_tensors)(Context* context, int32_t count, int32_t* first);
  int32_t (*get_node_and_registration)(Context* context, int32_t index, Node** node, Registration** registration);
  int32_t (*replace_node_subsets)(Context* context, Registration registration, const IntArray* nodes,
                                  Delegate* delegate);
  int32_t recommended_num_threads;  // less than 1 if the caller has not said
};
static_assert(offsetof(Context, replace_node_subsets) == 64 && offsetof(Context, recommended_num_threads) == 72);

struct Delegate {
  void* data;
  int32_t (*prepare)(Context* context, Delegate* delegate);
  void* copy_from_buffer_handle;
  void* copy_to_buffer_handle;
  void* free_buffer_handle;
  int64_t flags;
  void* opaque_delegate_builder;
};
static_assert(sizeof(Delegate) == 56);

// What a delegate kernel's init finds behind `buffer`.
struct DelegateParams {
  Delegate* delegate;
  IntArray* nodes_to_replace;
  IntArray* input_tensors;
  IntArray* output_tensors;
};

}  // namespace voxpress::tflite
