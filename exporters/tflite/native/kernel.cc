#include "kernel.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"
#include "options.h"
#include "pool/stats_pool.h"
#include "prepared/run_layer.h"
#include "prepared/settings.h"
#include "prepared/thread_pool.h"

namespace voxpress::tflite {

thread_local const Building* building = nullptr;

std::atomic<int> Store::count_{0};

Store* Store::create(bool low_memory) { return new (std::nothrow) Store(low_memory); }

void Store::release() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  delete this;
  // The runtime unloads this library some time after its last delegate and its last kernel are gone.
  if (count_.fetch_sub(1, std::memory_order_acq_rel) == 1) stop_threads();
}

Scratch* Scratch::create() { return new (std::nothrow) Scratch; }

void Scratch::release() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

bool Scratch::reserve(size_t bytes) {
  if (bytes <= size_) return true;
  constexpr std::align_val_t kAlignment{64};
  void* larger = ::operator new(bytes, kAlignment, std::nothrow);
  if (larger == nullptr) return false;
  ::operator delete(data_, kAlignment);
  data_ = larger;
  size_ = bytes;
  return true;
}

Scratch::~Scratch() { ::operator delete(data_, std::align_val_t{64}); }

const char* find_node(Context* context, const DelegateParams& params, CustomNode* found) {
  Node* node = nullptr;
  Registration* registration = nullptr;
  if (params.nodes_to_replace == nullptr || params.nodes_to_replace->size != 1 ||
      context->get_node_and_registration(context, params.nodes_to_replace->data[0], &node, &registration) != kTfOk ||
      registration->custom_name == nullptr) {
    return "the runtime gave no single custom node";
  }
  const size_t bytes = node->custom_initial_data_size < 0 ? 0 : static_cast<size_t>(node->custom_initial_data_size);
  *found = {node, registration->custom_name, node->custom_initial_data, bytes};
  return nullptr;
}

bool resize_tensor(Context* context, int32_t index, const int64_t* dims, int32_t rank) {
  const size_t bytes = sizeof(int32_t) * (static_cast<size_t>(rank) + 1);
  auto* size = static_cast<IntArray*>(std::malloc(bytes));  // the runtime takes it and calls free
  if (size == nullptr) return false;
  size->size = rank;
  for (int32_t j = 0; j < rank; ++j) size->data[j] = static_cast<int32_t>(dims[j]);
  return context->resize_tensor(context, &context->tensors[index], size) == kTfOk;
}

namespace {

constexpr int kMaxInputs = 6;
enum class Op { kConv2d, kConv2dU8, kStatsPool };
enum Conv2dInput { kX, kCodes, kPalette, kScale, kBias, kResidual };

// A node as it was in the file. Tensors are kept by index: the runtime moves its tensor array.
struct Kernel {
  Op op = Op::kStatsPool;
  const char* problem = nullptr;  // found at creation, reported in prepare: creation itself cannot fail
  int32_t inputs[kMaxInputs] = {-1, -1, -1, -1, -1, -1};
  int32_t output = -1;
  Conv2dU8Shape layer;  // of conv2d, which is float throughout, only `conv` and the elements
  StatsPoolShape stats_pool;
  int32_t threads = 1;  // as they were in prepare, when scratch was reserved
  Scratch* scratch = nullptr;
  Store* store = nullptr;
  PackedWeights* packed = nullptr;  // null: run from codes, because low memory is wanted or there was none
};

const char* take_tensors(const Context& context, const Node& node, int expected_inputs, Kernel* kernel) {
  if (node.inputs == nullptr || node.inputs->size != expected_inputs) return "wrong number of inputs";
  if (node.outputs == nullptr || node.outputs->size != 1) return "wrong number of outputs";
  const auto known = [&](int32_t index) { return index >= 0 && static_cast<size_t>(index) < context.tensors_size; };
  for (int j = 0; j < expected_inputs; ++j) {
    kernel->inputs[j] = node.inputs->data[j];
    const bool may_be_absent = j == kPalette || j == kResidual;
    if (!known(kernel->inputs[j]) && !(may_be_absent && kernel->inputs[j] == kOptionalTensor)) {
      return "an input is missing";
    }
  }
  kernel->output = node.outputs->data[0];
  return known(kernel->output) ? nullptr : "the output is missing";
}

const char* name_of(Op op) {
  switch (op) {
    case Op::kConv2d:
      return kConv2dName;
    case Op::kConv2dU8:
      return kConv2dU8Name;
    case Op::kStatsPool:
      return kStatsPoolName;
  }
  return "";
}

const char* parse_options(const void* bytes, size_t size, Kernel* kernel) {
  Conv2dU8Shape& layer = kernel->layer;
  switch (kernel->op) {
    case Op::kConv2d:
      layer.input = layer.residual = layer.output = Element::kF32;
      return parse_conv2d_options(bytes, size, &layer.conv);
    case Op::kConv2dU8:
      return parse_conv2d_u8_options(bytes, size, &layer);
    case Op::kStatsPool:
      break;
  }
  return parse_stats_pool_options(bytes, size);
}

const char* parse_node(Context* context, const DelegateParams& params, Kernel* kernel) {
  CustomNode found;
  if (const char* problem = find_node(context, params, &found)) return problem;
  for (const Op op : {Op::kConv2d, Op::kConv2dU8}) {
    if (std::strcmp(found.name, name_of(op)) == 0) kernel->op = op;
  }
  if (const char* problem = parse_options(found.options, found.options_bytes, kernel)) return problem;
  return take_tensors(*context, *found.node, kernel->op == Op::kStatsPool ? 1 : kMaxInputs, kernel);
}

const Tensor* tensor_or_null(const Context& context, int32_t index) {
  return index == kOptionalTensor ? nullptr : &context.tensors[index];
}

bool is_rank_4(const Tensor& tensor, Element element) {
  const int32_t type = element == Element::kU8 ? kTfUint8 : kTfFloat32;
  return tensor.type == type && tensor.dims != nullptr && tensor.dims->size == 4;
}

// Files name a u8 tensor's quantization twice: in the op's options, which count, and at the tensor, for other tools. A
// tensor may leave it out; one that contradicts the options is another tensor than the op was made for.
bool agrees(const Tensor& tensor, Element element, const Quantization& quantization) {
  if (element == Element::kF32 || tensor.scale == 0.0f) return true;
  return tensor.scale == quantization.scale && tensor.zero == quantization.zero;
}

bool same_dims(const IntArray& dims, const int64_t (&expected)[4]) {
  for (int j = 0; j < 4; ++j) {
    if (dims.data[j] != expected[j]) return false;
  }
  return true;
}

// True for a 1-D tensor of the given type whose bytes lie in the file.
bool is_constant(const Tensor& tensor, int32_t type) {
  return tensor.type == type && tensor.allocation_type == kTfMmapRo && tensor.data != nullptr &&
         tensor.dims != nullptr && tensor.dims->size == 1;
}

Conv2dWeights weights_of(const Context& context, const Kernel& kernel) {
  Conv2dWeights weights;
  const auto take = [&](Conv2dInput input, const void** data, size_t* bytes) {
    if (const Tensor* tensor = tensor_or_null(context, kernel.inputs[input])) {
      *data = tensor->data;
      *bytes = tensor->bytes;
    }
  };
  take(kCodes, &weights.codes, &weights.codes_bytes);
  take(kPalette, &weights.palette, &weights.palette_bytes);
  take(kScale, &weights.scale, &weights.scale_bytes);
  take(kBias, &weights.bias, &weights.bias_bytes);
  return weights;
}

int32_t fail(Context* context, const Kernel& kernel, const char* problem) {
  context->report_error(context, "%s: %s", name_of(kernel.op), problem);
  return kTfError;
}

bool fit_int32(const int64_t (&dims)[4]) {
  for (const int64_t dim : dims) {
    if (dim < 1 || dim > INT32_MAX) return false;
  }
  return true;
}

// Packs the weights, unless that was done at an earlier prepare, and reserves scratch. Null, or what went wrong.
template <typename Shape>
const char* prepare_weights(const Context& context, const Shape& shape, Kernel* kernel) {
  if (kernel->packed == nullptr && !kernel->store->low_memory()) {
    Status status = Status::kOk;
    kernel->packed = kernel->store->packed().get(shape, weights_of(context, *kernel), &status);
    if (status != Status::kOk) return status_text(status);
  }
  const size_t scratch_bytes = layer_scratch_bytes(shape, kernel->packed != nullptr, kernel->threads);
  return kernel->scratch->reserve(scratch_bytes) ? nullptr : "no memory for scratch";
}

const char* element_problem(Element element, const char* if_float, const char* if_u8) {
  return element == Element::kU8 ? if_u8 : if_float;
}

// What is wrong with the activations' types, ranks and quantizations; null if nothing is.
const char* activation_problem(const Context& context, const Kernel& kernel) {
  const Conv2dU8Shape& layer = kernel.layer;
  const Tensor& x = context.tensors[kernel.inputs[kX]];
  const Tensor* residual = tensor_or_null(context, kernel.inputs[kResidual]);
  const Tensor& output = context.tensors[kernel.output];
  if (!is_rank_4(x, layer.input)) {
    return element_problem(layer.input, "x is not float32 [N, frames, mel, C]", "x is not u8 [N, frames, mel, C]");
  }
  if (output.type != (layer.output == Element::kU8 ? kTfUint8 : kTfFloat32)) {
    return element_problem(layer.output, "the output is not float32", "the output is not u8");
  }
  if (!agrees(x, layer.input, layer.in) || !agrees(output, layer.output, layer.out) ||
      (residual != nullptr && !agrees(*residual, layer.residual, layer.res))) {
    return "a tensor's quantization is not that of the options";
  }
  return nullptr;
}

int32_t prepare_conv2d(Context* context, Kernel* kernel) {
  const Tensor& x = context->tensors[kernel->inputs[kX]];
  const Tensor& codes = context->tensors[kernel->inputs[kCodes]];
  const Tensor* palette = tensor_or_null(*context, kernel->inputs[kPalette]);
  const Tensor& scale = context->tensors[kernel->inputs[kScale]];
  const Tensor& bias = context->tensors[kernel->inputs[kBias]];
  if (const char* problem = activation_problem(*context, *kernel)) return fail(context, *kernel, problem);
  if (!is_constant(codes, kTfUint8)) return fail(context, *kernel, "codes are not a constant uint8 vector");
  if (palette != nullptr && !is_constant(*palette, kTfFloat32)) {
    return fail(context, *kernel, "the palette is not a constant float32 vector");
  }
  if (!is_constant(scale, kTfFloat32) || !is_constant(bias, kTfFloat32)) {
    return fail(context, *kernel, "scale and bias are not constant float32 vectors");
  }
  const bool exact = kernel->op == Op::kConv2d;
  Conv2dShape& shape = kernel->layer.conv;
  shape.batch = x.dims->data[0];
  shape.in_frames = x.dims->data[1];
  shape.in_mel = x.dims->data[2];
  shape.in_channels = x.dims->data[3];
  shape.out_channels = scale.dims->data[0];
  const Conv2dWeights weights = weights_of(*context, *kernel);
  const Status status = exact ? conv2d_check(shape, weights) : conv2d_u8_check(kernel->layer, weights);
  if (status != Status::kOk) return fail(context, *kernel, status_text(status));
  const int64_t dims[] = {shape.batch, conv2d_out_frames(shape), conv2d_out_mel(shape), shape.out_channels};
  if (!fit_int32(dims)) return fail(context, *kernel, status_text(Status::kBadShape));
  const Tensor* residual = tensor_or_null(*context, kernel->inputs[kResidual]);
  const Element element = kernel->layer.residual;
  if (residual != nullptr && !(is_rank_4(*residual, element) && same_dims(*residual->dims, dims))) {
    return fail(context, *kernel,
                element_problem(element, "the residual is not float32 of the output's shape",
                                "the residual is not u8 of the output's shape"));
  }
  kernel->threads = threads_wanted(context->recommended_num_threads);
  const char* problem =
      exact ? prepare_weights(*context, shape, kernel) : prepare_weights(*context, kernel->layer, kernel);
  if (problem != nullptr) return fail(context, *kernel, problem);
  return resize_tensor(context, kernel->output, dims, 4) ? kTfOk
                                                         : fail(context, *kernel, "the output cannot be resized");
}

int32_t prepare_stats_pool(Context* context, Kernel* kernel) {
  const Tensor& x = context->tensors[kernel->inputs[kX]];
  if (!is_rank_4(x, Element::kF32)) return fail(context, *kernel, "x is not float32 [N, frames, mel, C]");
  kernel->stats_pool = {x.dims->data[0], x.dims->data[1], x.dims->data[2], x.dims->data[3]};
  const Status status = stats_pool_check(kernel->stats_pool);
  if (status != Status::kOk) return fail(context, *kernel, status_text(status));
  const int64_t dims[] = {kernel->stats_pool.batch, 1, 1, 2 * kernel->stats_pool.mel * kernel->stats_pool.channels};
  if (!fit_int32(dims)) return fail(context, *kernel, status_text(Status::kBadShape));
  if (context->tensors[kernel->output].type != kTfFloat32) return fail(context, *kernel, "the output is not float32");
  return resize_tensor(context, kernel->output, dims, 4) ? kTfOk
                                                         : fail(context, *kernel, "the output cannot be resized");
}

// Activations must have the size they had in prepare; a runtime that resized one without asking again is stopped here.
bool has_bytes(const Tensor& tensor, int64_t elements, Element element = Element::kF32) {
  const size_t size = element == Element::kU8 ? sizeof(uint8_t) : sizeof(float);
  return tensor.data != nullptr && tensor.bytes == static_cast<size_t>(elements) * size;
}

template <typename Shape, typename Tensors>
Status run(const Context& context, const Kernel& kernel, const Shape& shape, const Tensors& tensors) {
  const Conv2dWeights weights = weights_of(context, kernel);
  LayerCall<Shape, Tensors> call;
  call.shape = &shape;
  call.weights = &weights;
  call.packed = kernel.packed;
  call.tensors = &tensors;
  call.scratch = kernel.scratch->data();
  call.scratch_bytes = kernel.scratch->size();
  call.threads = kernel.threads;
  return run_layer(call);
}

int32_t invoke_conv2d(Context* context, const Kernel& kernel) {
  const Conv2dU8Shape& layer = kernel.layer;
  const Conv2dShape& shape = layer.conv;
  const Tensor& x = context->tensors[kernel.inputs[kX]];
  const Tensor* residual = tensor_or_null(*context, kernel.inputs[kResidual]);
  Tensor& output = context->tensors[kernel.output];
  const int64_t out_elements = shape.batch * conv2d_out_frames(shape) * conv2d_out_mel(shape) * shape.out_channels;
  if (!has_bytes(x, shape.batch * shape.in_frames * shape.in_mel * shape.in_channels, layer.input) ||
      !has_bytes(output, out_elements, layer.output) ||
      (residual != nullptr && !has_bytes(*residual, out_elements, layer.residual))) {
    return fail(context, kernel, status_text(Status::kBadBufferSize));
  }
  const void* added = residual == nullptr ? nullptr : residual->data;
  Status status = Status::kOk;
  if (kernel.op == Op::kConv2d) {
    Conv2dTensors tensors;
    tensors.input = static_cast<const float*>(x.data);
    tensors.residual = static_cast<const float*>(added);
    tensors.output = static_cast<float*>(output.data);
    status = run(*context, kernel, shape, tensors);
  } else {
    Conv2dU8Tensors tensors;
    tensors.input = x.data;
    tensors.residual = added;
    tensors.output = output.data;
    status = run(*context, kernel, layer, tensors);
  }
  return status == Status::kOk ? kTfOk : fail(context, kernel, status_text(status));
}

int32_t invoke_stats_pool(Context* context, const Kernel& kernel) {
  const StatsPoolShape& shape = kernel.stats_pool;
  const Tensor& x = context->tensors[kernel.inputs[kX]];
  Tensor& output = context->tensors[kernel.output];
  if (!has_bytes(x, shape.batch * shape.frames * shape.mel * shape.channels) ||
      !has_bytes(output, shape.batch * 2 * shape.mel * shape.channels)) {
    return fail(context, kernel, status_text(Status::kBadBufferSize));
  }
  const Status status = stats_pool_run(shape, static_cast<const float*>(x.data), static_cast<float*>(output.data));
  return status == Status::kOk ? kTfOk : fail(context, kernel, status_text(status));
}

void* init(Context* context, const char* buffer, size_t) {
  auto* kernel = new (std::nothrow) Kernel;
  if (kernel == nullptr) return nullptr;
  kernel->problem = parse_node(context, *reinterpret_cast<const DelegateParams*>(buffer), kernel);
  if (building != nullptr) {
    kernel->scratch = building->scratch;
    kernel->scratch->retain();
    kernel->store = building->store;
    kernel->store->retain();
  } else if (kernel->problem == nullptr) {
    kernel->problem = "created outside of the delegate";
  }
  return kernel;
}

void release(Context*, void* buffer) {
  auto* kernel = static_cast<Kernel*>(buffer);
  if (kernel == nullptr) return;
  if (kernel->packed != nullptr) kernel->packed->release();
  if (kernel->scratch != nullptr) kernel->scratch->release();
  if (kernel->store != nullptr) kernel->store->release();
  delete kernel;
}

int32_t prepare(Context* context, Node* node) {
  auto* kernel = static_cast<Kernel*>(node->user_data);
  if (kernel == nullptr) {
    context->report_error(context, "voxpress: no memory for a delegate kernel");
    return kTfError;
  }
  if (kernel->problem != nullptr) return fail(context, *kernel, kernel->problem);
  return kernel->op == Op::kStatsPool ? prepare_stats_pool(context, kernel) : prepare_conv2d(context, kernel);
}

int32_t invoke(Context* context, Node* node) {
  const auto& kernel = *static_cast<const Kernel*>(node->user_data);
  return kernel.op == Op::kStatsPool ? invoke_stats_pool(context, kernel) : invoke_conv2d(context, kernel);
}

}  // namespace

Registration kernel_registration() {
  Registration registration = {};
  registration.init = init;
  registration.free = release;
  registration.prepare = prepare;
  registration.invoke = invoke;
  registration.custom_name = "VoxPressKernel";
  registration.version = 1;
  return registration;
}

}  // namespace voxpress::tflite
