#include "adapters.h"

#include "arguments.h"
#include "base/status.h"
#include "conv/conv2d.h"
#include "pool/stats_pool.h"
#include "prepared/packed_store.h"
#include "prepared/settings.h"

namespace voxpress::pte {
namespace {

constexpr size_t kScratchAlignment = 64;
constexpr size_t kPackedLimitBytes = size_t{512} << 20;  // a ResNet34 takes 59 MB, a ResNet293 some 350 MB

bool same_sizes(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (ssize_t axis = 0; axis < a.dim(); ++axis) {
    if (a.size(axis) != b.size(axis)) return false;
  }
  return true;
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

  if (!resize(context, kOp, *out, {shape.batch, conv2d_out_frames(shape), conv2d_out_mel(shape), shape.out_channels})) {
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

  if (!resize(context, kOp, *out, {shape.batch, 1, 1, 2 * shape.mel * shape.channels})) return;

  succeeded(context, kOp, stats_pool_run(shape, x->const_data_ptr<float>(), out->mutable_data_ptr<float>()));
}

}  // namespace voxpress::pte
