#include "conv_u8/conv2d_u8.h"

#include "adapters.h"
#include "call.h"

namespace voxpress::pte {
namespace {

Element element_of(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Byte ? Element::kU8 : Element::kF32;
}

// A scale and a zero point; what does not fit into their types is left to be refused as a bad quantization.
Quantization read_quantization(Arguments* arguments) {
  Quantization quantization;
  quantization.scale = static_cast<float>(arguments->real());
  const int64_t zero = arguments->integer();
  quantization.zero = zero >= 0 && zero <= 255 ? static_cast<int32_t>(zero) : -1;
  return quantization;
}

}  // namespace

void conv2d_u8_out(KernelRuntimeContext& context, Stack stack) {
  constexpr char kOp[] = "voxpress::conv2d_u8.out";
  Arguments arguments(stack);
  LayerArguments layer;
  if (!read_layer(context, kOp, &arguments, &layer)) return;
  Conv2dU8Shape shape;
  shape.conv = layer.shape;
  shape.in = read_quantization(&arguments);
  shape.res = read_quantization(&arguments);
  const bool out_u8 = arguments.boolean();
  shape.out = read_quantization(&arguments);
  const int64_t algorithm = arguments.integer();
  const int64_t version = arguments.integer();
  const Tensor* out = arguments.tensor(out_u8 ? ScalarType::Byte : ScalarType::Float, 4);
  if (!arguments.ok()) return fail(context, Error::InvalidArgument, kOp, "an argument is missing or of the wrong type");
  if (!succeeded(context, kOp, version == kConv2dU8Version ? Status::kOk : Status::kBadVersion)) return;
  if (!succeeded(context, kOp, algorithm >= 0 && algorithm <= UINT8_MAX ? Status::kOk : Status::kBadAlgorithm)) return;
  shape.input = element_of(*layer.x);
  shape.residual = layer.residual == nullptr ? Element::kF32 : element_of(*layer.residual);
  shape.output = element_of(*out);
  shape.algorithm = static_cast<Algorithm>(algorithm);
  if (!succeeded(context, kOp, conv2d_u8_check(shape, layer.weights))) return;
  if (!resize_output(context, kOp, layer, *out)) return;
  Conv2dU8Tensors tensors;
  tensors.input = layer.x->const_data_ptr();
  tensors.residual = layer.residual == nullptr ? nullptr : layer.residual->const_data_ptr();
  tensors.output = out->mutable_data_ptr();
  run(context, kOp, shape, layer.weights, tensors);
}

}  // namespace voxpress::pte
