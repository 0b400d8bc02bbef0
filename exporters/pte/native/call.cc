#include "call.h"

#include <executorch/runtime/platform/log.h>

#include <atomic>
#include <limits>

#include "prepared/packed_store.h"
#include "prepared/run_layer.h"
#include "prepared/settings.h"

namespace voxpress::pte {
namespace {

using ::executorch::aten::SizesType;

constexpr size_t kScratchAlignment = 64;
constexpr size_t kPackedLimitBytes = size_t{512} << 20;  // a ResNet34 takes 59 MB, a ResNet293 some 350 MB

bool same_sizes(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (ssize_t axis = 0; axis < a.dim(); ++axis) {
    if (a.size(axis) != b.size(axis)) return false;
  }
  return true;
}

// What the environment says, read once, at the first use, and whether it can be done.
struct Settings {
  Status status = apply_settings();
  std::atomic<bool> low_memory{low_memory_wanted()};
  std::atomic<int32_t> threads{1};
};

Settings& settings() {
  static Settings found;
  return found;
}

template <typename Shape, typename Tensors>
void run_any(KernelRuntimeContext& context, const char* op, const Shape& shape, const Conv2dWeights& weights,
             const Tensors& tensors) {
  if (settings().status != Status::kOk) return fail(context, Error::NotSupported, op, kBadSettingsText);
  Status status = Status::kOk;
  PackedWeights* packed = settings().low_memory ? nullptr : packed_store().get(shape, weights, &status);
  if (!succeeded(context, op, status)) return;
  LayerCall<Shape, Tensors> call;
  call.shape = &shape;
  call.weights = &weights;
  call.packed = packed;
  call.tensors = &tensors;
  call.threads = threads_wanted(settings().threads);
  call.scratch_bytes = layer_scratch_bytes(shape, packed != nullptr, call.threads);
  const Result<void*> scratch = context.allocate_temp(call.scratch_bytes, kScratchAlignment);
  if (scratch.ok()) {
    call.scratch = *scratch;
    succeeded(context, op, run_layer(call));
  } else {
    fail(context, scratch.error(), op, "no temporary memory");
  }
  if (packed != nullptr) packed->release();
}

}  // namespace

PackedStore& packed_store() {
  static PackedStore* const store = new PackedStore(kPackedLimitBytes);  // never freed: ops may run until the very end
  return *store;
}

void set_low_memory(bool low_memory) { settings().low_memory = low_memory; }

void set_threads(int32_t threads) { settings().threads = threads; }

void fail(KernelRuntimeContext& context, Error error, const char* op, const char* what) {
  ET_LOG(Error, "%s: %s", op, what);
  context.fail(error);
}

bool succeeded(KernelRuntimeContext& context, const char* op, Status status) {
  if (status == Status::kOk) return true;
  fail(context, status == Status::kBadVersion ? Error::NotSupported : Error::InvalidArgument, op, status_text(status));
  return false;
}

bool resize(KernelRuntimeContext& context, const char* op, const Tensor& out, const int64_t* size, int rank) {
  SizesType sizes[4];
  Error error = Error::Ok;
  for (int axis = 0; axis < rank; ++axis) {
    if (size[axis] > std::numeric_limits<SizesType>::max()) error = Error::InvalidArgument;
    sizes[axis] = static_cast<SizesType>(size[axis]);
  }
  if (error == Error::Ok) error = ::executorch::runtime::resize_tensor(out, {sizes, static_cast<size_t>(rank)});
  if (error == Error::Ok) return true;
  fail(context, error, op, "the output does not fit into the memory planned for it");
  return false;
}

bool read_layer(KernelRuntimeContext& context, const char* op, Arguments* arguments, LayerArguments* layer) {
  Conv2dShape& shape = layer->shape;
  layer->x = arguments->activation();
  const Tensor* codes = arguments->tensor(ScalarType::Byte, 1);
  const Tensor* palette = arguments->optional_tensor(ScalarType::Float, 1);
  const Tensor* scale = arguments->tensor(ScalarType::Float, 1);
  const Tensor* bias = arguments->tensor(ScalarType::Float, 1);
  layer->residual = arguments->optional_activation();
  arguments->pair(&shape.kernel_frames, &shape.kernel_mel);
  arguments->pair(&shape.stride_frames, &shape.stride_mel);
  arguments->pair(&shape.pad_frames, &shape.pad_mel);
  shape.groups = arguments->integer();
  const int64_t bits = arguments->integer();
  shape.relu = arguments->boolean();
  if (!arguments->ok()) {
    fail(context, Error::InvalidArgument, op, "an argument is missing or of the wrong type");
    return false;
  }
  if (!succeeded(context, op, bits >= 1 && bits <= 32 ? Status::kOk : Status::kBadBits)) return false;
  shape.bits = static_cast<int32_t>(bits);
  shape.batch = layer->x->size(0);
  shape.in_frames = layer->x->size(1);
  shape.in_mel = layer->x->size(2);
  shape.in_channels = layer->x->size(3);
  shape.out_channels = scale->size(0);
  Conv2dWeights& weights = layer->weights;
  weights.codes = codes->const_data_ptr();
  weights.codes_bytes = codes->nbytes();
  weights.palette = palette == nullptr ? nullptr : palette->const_data_ptr();
  weights.palette_bytes = palette == nullptr ? 0 : palette->nbytes();
  weights.scale = scale->const_data_ptr();
  weights.scale_bytes = scale->nbytes();
  weights.bias = bias->const_data_ptr();
  weights.bias_bytes = bias->nbytes();
  return true;
}

bool resize_output(KernelRuntimeContext& context, const char* op, const LayerArguments& layer, const Tensor& out) {
  const Conv2dShape& shape = layer.shape;
  const int64_t size[] = {shape.batch, conv2d_out_frames(shape), conv2d_out_mel(shape), shape.out_channels};
  if (!resize(context, op, out, size, 4)) return false;
  if (layer.residual == nullptr || same_sizes(*layer.residual, out)) return true;
  fail(context, Error::InvalidArgument, op, "the residual's shape is not the output's");
  return false;
}

void run(KernelRuntimeContext& context, const char* op, const Conv2dShape& shape, const Conv2dWeights& weights,
         const Conv2dTensors& tensors) {
  run_any(context, op, shape, weights, tensors);
}

void run(KernelRuntimeContext& context, const char* op, const Conv2dU8Shape& shape, const Conv2dWeights& weights,
         const Conv2dU8Tensors& tensors) {
  run_any(context, op, shape, weights, tensors);
}

}  // namespace voxpress::pte
