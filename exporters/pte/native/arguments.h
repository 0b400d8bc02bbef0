// What the adapters of all ops share: reading a call's arguments, sizing the output, and saying what went wrong.
#pragma once

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

#include <cstddef>
#include <limits>

#include "adapters.h"
#include "base/status.h"

namespace voxpress::pte {

using ::executorch::aten::ScalarType;
using ::executorch::aten::SizesType;
using ::executorch::aten::Tensor;
using ::executorch::runtime::Error;
using ::executorch::runtime::EValue;
using ::executorch::runtime::KernelRuntimeContext;
using ::executorch::runtime::Result;

inline void fail(KernelRuntimeContext& context, Error error, const char* op, const char* what) {
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

  double number() {
    EValue* value = next();
    if (value == nullptr || !value->isDouble()) return reject(), 0;
    return value->toDouble();
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

// Sizes the output, whose rank is the number of sizes.
template <size_t kRank>
bool resize(KernelRuntimeContext& context, const char* op, const Tensor& out, const int64_t (&wanted)[kRank]) {
  SizesType sizes[kRank];
  Error error = Error::Ok;
  for (size_t axis = 0; axis < kRank; ++axis) {
    if (wanted[axis] > std::numeric_limits<SizesType>::max()) error = Error::InvalidArgument;
    sizes[axis] = static_cast<SizesType>(wanted[axis]);
  }
  if (error == Error::Ok) error = ::executorch::runtime::resize_tensor(out, {sizes, kRank});
  if (error == Error::Ok) return true;
  fail(context, error, op, "the output does not fit into the memory planned for it");
  return false;
}

inline bool succeeded(KernelRuntimeContext& context, const char* op, Status status) {
  if (status == Status::kOk) return true;
  fail(context, status == Status::kBadVersion ? Error::NotSupported : Error::InvalidArgument, op, status_text(status));
  return false;
}

}  // namespace voxpress::pte
