// Boxed ExecuTorch kernel around the front end.
#pragma once

#include "adapters.h"

namespace voxpress::pte {

// voxpress::fbank.out; the order of arguments is that of the schema in fbank_op.py. Whatever is wrong with the
// arguments is recorded in the context; nothing aborts.
void fbank_out(::executorch::runtime::KernelRuntimeContext& context, Stack stack);

}  // namespace voxpress::pte
