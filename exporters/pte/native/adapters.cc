#include "adapters.h"

#include "call.h"
#include "conv/conv2d.h"
#include "pool/stats_pool.h"

namespace voxpress::pte {
namespace {

constexpr char kWrongArguments[] = "an argument is missing or of the wrong type";

bool is_float(const Tensor* tensor) { return tensor == nullptr || tensor->scalar_type() == ScalarType::Float; }

}  // namespace

void conv2d_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kOp[] = "voxpress::conv2d.out";
  Arguments arguments(stack);
  LayerArguments layer;
  if (!read_layer(context, kOp, &arguments, &layer)) return;
  const int64_t version = arguments.integer();
  const Tensor* out = arguments.tensor(ScalarType::Float, 4);
  if (!arguments.ok() || !is_float(layer.x) || !is_float(layer.residual)) {
    return fail(context, Error::InvalidArgument, kOp, kWrongArguments);
  }
  if (!succeeded(context, kOp, version == kConv2dVersion ? Status::kOk : Status::kBadVersion)) return;
  if (!succeeded(context, kOp, conv2d_check(layer.shape, layer.weights))) return;
  if (!resize_output(context, kOp, layer, *out)) return;
  Conv2dTensors tensors;
  tensors.input = layer.x->const_data_ptr<float>();
  tensors.residual = layer.residual == nullptr ? nullptr : layer.residual->const_data_ptr<float>();
  tensors.output = out->mutable_data_ptr<float>();
  run(context, kOp, layer.shape, layer.weights, tensors);
}

void stats_pool_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kOp[] = "voxpress::stats_pool.out";
  Arguments arguments(stack);
  const Tensor* x = arguments.tensor(ScalarType::Float, 4);
  const int64_t version = arguments.integer();
  const Tensor* out = arguments.tensor(ScalarType::Float, 4);
  if (!arguments.ok()) return fail(context, Error::InvalidArgument, kOp, kWrongArguments);
  if (!succeeded(context, kOp, version == kStatsPoolVersion ? Status::kOk : Status::kBadVersion)) return;
  StatsPoolShape shape;
  shape.batch = x->size(0);
  shape.frames = x->size(1);
  shape.mel = x->size(2);
  shape.channels = x->size(3);
  if (!succeeded(context, kOp, stats_pool_check(shape))) return;

  const int64_t size[] = {shape.batch, 1, 1, 2 * shape.mel * shape.channels};
  if (!resize(context, kOp, *out, size, 4)) return;

  succeeded(context, kOp, stats_pool_run(shape, x->const_data_ptr<float>(), out->mutable_data_ptr<float>()));
}

}  // namespace voxpress::pte
