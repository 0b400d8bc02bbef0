#include "adapters.h"

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

#include <limits>

#include "base/status.h"
#include "conv/conv2d.h"
#include "pool/stats_pool.h"
#include "prepared/packed_store.h"
#include "prepared/settings.h"

namespace voxpress::pte {
namespace {

using ::executorch::aten::ScalarType;
using ::executorch::aten::SizesType;
using ::executorch::aten::Tensor;
using ::executorch::runtime::Error;
using ::executorch::runtime::EValue;
using ::executorch::runtime::KernelRuntimeContext;
using ::executorch::runtime::Result;

constexpr size_t kScratchAlignment = 64;
constexpr size_t kPackedLimitBytes = size_t{512} << 20;  // a ResNet34 takes 59 MB, a ResNet293 some 350 MB

void fail(KernelRuntimeContext& context, Error error, const char* op, const char* what) {
  ET_LOG(Error, "%s: %s", op, what);
  context.fail(error);
}

// The arguments of a call, read one after the other. After the first that is missing or of the wrong kind, `ok` is
// false and all further reads give empty values.
class Arguments {
 public:
  explicit Arguments(Stack stack) : stack_(stack) {}

  // A tensor of the type, densely packed in the order of its dimensions; `rank` 0 takes any.
  const Tensor* tensor(ScalarType type, int rank) {
    EValue* value = next();
    if (value == nullptr || !value->isTensor()) return reject();
    const Tensor& tensor = value->toTensor();
    if (tensor.scalar_type() != type || (rank != 0 && tensor.dim() != rank)) return reject();
    if (!::executorch::runtime::tensor_is_default_dim_order(tensor)) return reject();
    return &tensor;
  }

  const Tensor* optional_tensor(ScalarType type, int rank) {
    EValue* value = peek();
    if (value == nullptr || !value->isNone()) return tensor(type, rank);
    ++position_;
    return nullptr;
  }

  int64_t integer() {
    EValue* value = next();
    if (value == nullptr || !value->isInt()) return reject(), 0;
    return value->toInt();
  }

  bool boolean() {
    EValue* value = next();
    if (value == nullptr || !value->isBool()) return reject(), false;
    return value->toBool();
  }

  // A list of two integers: frames, mel.
  void pair(int64_t* frames, int64_t* mel) {
    EValue* value = next();
    if (value == nullptr) return;
    const Result<::executorch::aten::ArrayRef<int64_t>> list = value->tryToIntList();
    if (!list.ok() || list->size() != 2) {
      reject();
      return;
    }
    *frames = (*list)[0];
    *mel = (*list)[1];
  }

  bool ok() const { return ok_; }

 private:
  EValue* peek() {
    if (!ok_ || position_ >= stack_.size() || stack_[position_] == nullptr) {
      reject();
      return nullptr;
    }
    return stack_[position_];
  }

  EValue* next() {
    EValue* value = peek();
    ++position_;
    return value;
  }

  std::nullptr_t reject() {
    ok_ = false;
    return nullptr;
  }

  Stack stack_;
  size_t position_ = 0;
  bool ok_ = true;
};

bool resize(KernelRuntimeContext& context, const char* op, const Tensor& out, int64_t batch, int64_t frames,
            int64_t mel, int64_t channels) {
  const int64_t wanted[] = {batch, frames, mel, channels};
  SizesType sizes[4];
  Error error = Error::Ok;
  for (int axis = 0; axis < 4; ++axis) {
    if (wanted[axis] > std::numeric_limits<SizesType>::max()) error = Error::InvalidArgument;
    sizes[axis] = static_cast<SizesType>(wanted[axis]);
  }
  if (error == Error::Ok) error = ::executorch::runtime::resize_tensor(out, {sizes, 4});
  if (error == Error::Ok) return true;
  fail(context, error, op, "the output does not fit into the memory planned for it");
  return false;
}

bool same_sizes(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (ssize_t axis = 0; axis < a.dim(); ++axis) {
    if (a.size(axis) != b.size(axis)) return false;
  }
  return true;
}

bool succeeded(KernelRuntimeContext& context, const char* op, Status status) {
  if (status == Status::kOk) return true;
  fail(context, status == Status::kBadVersion ? Error::NotSupported : Error::InvalidArgument, op, status_text(status));
  return false;
}

// Read once, at the first call: what the environment says, and whether it can be done.
struct Settings {
  Status status = apply_settings();
  bool low_memory = low_memory_wanted();
};

const Settings& settings() {
  static const Settings found;
  return found;
}

// Runs a layer from packed weights, or from codes if none are to be had.
void run_conv2d(KernelRuntimeContext& context, const char* op, const Conv2dShape& shape, const Conv2dWeights& weights,
                const Conv2dTensors& tensors) {
  if (settings().status != Status::kOk) return fail(context, Error::NotSupported, op, kBadSettingsText);
  Status status = Status::kOk;
  PackedWeights* packed = settings().low_memory ? nullptr : packed_store().get(shape, weights, &status);
  if (!succeeded(context, op, status)) return;
  const size_t scratch_bytes = packed == nullptr ? conv2d_scratch_bytes(shape) : conv2d_packed_scratch_bytes(shape);
  const Result<void*> scratch = context.allocate_temp(scratch_bytes, kScratchAlignment);
  if (!scratch.ok()) {
    fail(context, scratch.error(), op, "no temporary memory");
  } else if (packed == nullptr) {
    succeeded(context, op, conv2d_run(shape, weights, tensors, *scratch, scratch_bytes));
  } else {
    succeeded(context, op,
              conv2d_run_packed(shape, packed->data(), packed->size_bytes(), tensors, *scratch, scratch_bytes));
  }
  if (packed != nullptr) packed->release();
}

}  // namespace

PackedStore& packed_store() {
  static PackedStore* const store = new PackedStore(kPackedLimitBytes);  // never freed: ops may run until the very end
  return *store;
}

void conv2d_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kOp[] = "voxpress::conv2d.out";
  Arguments arguments(stack);
  Conv2dShape shape;
  const Tensor* x = arguments.tensor(ScalarType::Float, 4);
  const Tensor* codes = arguments.tensor(ScalarType::Byte, 1);
  const Tensor* palette = arguments.optional_tensor(ScalarType::Float, 1);
  const Tensor* scale = arguments.tensor(ScalarType::Float, 1);
  const Tensor* bias = arguments.tensor(ScalarType::Float, 1);
  const Tensor* residual = arguments.optional_tensor(ScalarType::Float, 4);
  arguments.pair(&shape.kernel_frames, &shape.kernel_mel);
  arguments.pair(&shape.stride_frames, &shape.stride_mel);
  arguments.pair(&shape.pad_frames, &shape.pad_mel);
  shape.groups = arguments.integer();
  const int64_t bits = arguments.integer();
  shape.relu = arguments.boolean();
  const int64_t version = arguments.integer();
  const Tensor* out = arguments.tensor(ScalarType::Float, 4);
  if (!arguments.ok()) return fail(context, Error::InvalidArgument, kOp, "an argument is missing or of the wrong type");
  if (!succeeded(context, kOp, version == kConv2dVersion ? Status::kOk : Status::kBadVersion)) return;
  if (!succeeded(context, kOp, bits >= 1 && bits <= 32 ? Status::kOk : Status::kBadBits)) return;

  shape.batch = x->size(0);
  shape.in_frames = x->size(1);
  shape.in_mel = x->size(2);
  shape.in_channels = x->size(3);
  shape.out_channels = scale->size(0);
  shape.bits = static_cast<int32_t>(bits);
  Conv2dWeights weights;
  weights.codes = codes->const_data_ptr();
  weights.codes_bytes = codes->nbytes();
  weights.palette = palette == nullptr ? nullptr : palette->const_data_ptr();
  weights.palette_bytes = palette == nullptr ? 0 : palette->nbytes();
  weights.scale = scale->const_data_ptr();
  weights.scale_bytes = scale->nbytes();
  weights.bias = bias->const_data_ptr();
  weights.bias_bytes = bias->nbytes();
  if (!succeeded(context, kOp, conv2d_check(shape, weights))) return;

  if (!resize(context, kOp, *out, shape.batch, conv2d_out_frames(shape), conv2d_out_mel(shape), shape.out_channels)) {
    return;
  }
  if (residual != nullptr && !same_sizes(*residual, *out)) {
    return fail(context, Error::InvalidArgument, kOp, "the residual's shape is not the output's");
  }
  Conv2dTensors tensors;
  tensors.input = x->const_data_ptr<float>();
  tensors.residual = residual == nullptr ? nullptr : residual->const_data_ptr<float>();
  tensors.output = out->mutable_data_ptr<float>();
  run_conv2d(context, kOp, shape, weights, tensors);
}

void stats_pool_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kOp[] = "voxpress::stats_pool.out";
  Arguments arguments(stack);
  const Tensor* x = arguments.tensor(ScalarType::Float, 4);
  const int64_t version = arguments.integer();
  const Tensor* out = arguments.tensor(ScalarType::Float, 4);
  if (!arguments.ok()) return fail(context, Error::InvalidArgument, kOp, "an argument is missing or of the wrong type");
  if (!succeeded(context, kOp, version == kStatsPoolVersion ? Status::kOk : Status::kBadVersion)) return;
  StatsPoolShape shape;
  shape.batch = x->size(0);
  shape.frames = x->size(1);
  shape.mel = x->size(2);
  shape.channels = x->size(3);
  if (!succeeded(context, kOp, stats_pool_check(shape))) return;

  if (!resize(context, kOp, *out, shape.batch, 1, 1, 2 * shape.mel * shape.channels)) return;

  succeeded(context, kOp, stats_pool_run(shape, x->const_data_ptr<float>(), out->mutable_data_ptr<float>()));
}

}  // namespace voxpress::pte
