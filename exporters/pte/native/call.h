// What the boxed kernels share: reading arguments, saying what is wrong with them, sizing outputs, running a layer.
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>

#include <cstddef>
#include <cstdint>

#include "adapters.h"
#include "base/status.h"
#include "conv/conv2d.h"
#include "conv_u8/conv2d_u8.h"

namespace voxpress::pte {

using ::executorch::aten::ScalarType;
using ::executorch::aten::Tensor;
using ::executorch::runtime::Error;
using ::executorch::runtime::EValue;
using ::executorch::runtime::KernelRuntimeContext;
using ::executorch::runtime::Result;

// Records an error in the context and explains it in the runtime's log.
void fail(KernelRuntimeContext& context, Error error, const char* op, const char* what);

// True if the status is kOk; else it is recorded.
bool succeeded(KernelRuntimeContext& context, const char* op, Status status);

// Gives the output its size, `rank` dimensions of at most 4. False, and recorded, if its memory does not allow that.
bool resize(KernelRuntimeContext& context, const char* op, const Tensor& out, const int64_t* size, int rank);

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

  // A float or a u8 tensor [N, frames, mel, C].
  const Tensor* activation() {
    EValue* value = peek();
    const bool is_u8 = value != nullptr && value->isTensor() && value->toTensor().scalar_type() == ScalarType::Byte;
    return tensor(is_u8 ? ScalarType::Byte : ScalarType::Float, 4);
  }

  const Tensor* optional_activation() {
    if (EValue* value = peek(); value == nullptr || !value->isNone()) return activation();
    ++position_;
    return nullptr;
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

  double real() {
    EValue* value = next();
    if (value == nullptr || !value->isDouble()) return reject(), 0.0;
    return value->toDouble();
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

// The arguments that conv2d and conv2d_u8 begin with.
struct LayerArguments {
  const Tensor* x = nullptr;
  const Tensor* residual = nullptr;
  Conv2dShape shape;
  Conv2dWeights weights;
};

// Reads them. False, and recorded, if an argument is missing or of the wrong type.
bool read_layer(KernelRuntimeContext& context, const char* op, Arguments* arguments, LayerArguments* layer);

// Sizes the output and checks that the residual is of its size.
bool resize_output(KernelRuntimeContext& context, const char* op, const LayerArguments& layer, const Tensor& out);

// Runs a layer from packed weights, or from its codes if low memory is wanted or there is no memory for packed ones.
void run(KernelRuntimeContext& context, const char* op, const Conv2dShape& shape, const Conv2dWeights& weights,
         const Conv2dTensors& tensors);
void run(KernelRuntimeContext& context, const char* op, const Conv2dU8Shape& shape, const Conv2dWeights& weights,
         const Conv2dU8Tensors& tensors);

}  // namespace voxpress::pte
