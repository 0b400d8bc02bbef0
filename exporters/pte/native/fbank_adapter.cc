#include "fbank_adapter.h"

#include <cstdint>

#include "call.h"
#include "frontend/fbank.h"

namespace voxpress::pte {
namespace {

constexpr char kOp[] = "voxpress::fbank.out";
constexpr size_t kAlignment = 64;
// Bits of the attribute `flags`.
enum Flag : int64_t { kRoundToPowerOfTwo = 1, kRemoveDcOffset = 2, kUsePower = 4, kUseLog = 8, kMeanNormalise = 16 };
constexpr int64_t kAllFlags = 31;

// 0, which no size may be, for what is no 32-bit number.
int32_t size_of(int64_t value) { return value == static_cast<int32_t>(value) ? static_cast<int32_t>(value) : 0; }

bool read_options(Arguments* arguments, FbankOptions* options, int64_t* version) {
  options->sample_rate_hz = size_of(arguments->integer());
  options->window_samples = size_of(arguments->integer());
  options->shift_samples = size_of(arguments->integer());
  options->num_mel_bins = size_of(arguments->integer());
  options->sample_scale = static_cast<float>(arguments->real());
  options->preemphasis = static_cast<float>(arguments->real());
  options->low_hz = static_cast<float>(arguments->real());
  options->high_hz = static_cast<float>(arguments->real());
  const int64_t window = arguments->integer(), flags = arguments->integer();
  options->window = static_cast<FbankWindow>(window == static_cast<int32_t>(window) ? window : -1);
  options->round_to_power_of_two = (flags & kRoundToPowerOfTwo) != 0;
  options->remove_dc_offset = (flags & kRemoveDcOffset) != 0;
  options->use_power = (flags & kUsePower) != 0;
  options->use_log = (flags & kUseLog) != 0;
  options->mean_normalise = (flags & kMeanNormalise) != 0;
  *version = arguments->integer();
  return (flags & ~kAllFlags) == 0;
}

}  // namespace

void fbank_out(KernelRuntimeContext& context, Stack stack) {
  Arguments arguments(stack);
  FbankOptions options;
  int64_t version = 0;
  const Tensor* samples = arguments.tensor(ScalarType::Float, 2);
  const bool known_flags = read_options(&arguments, &options, &version);
  const Tensor* out = arguments.tensor(ScalarType::Float, 3);
  if (!arguments.ok()) return fail(context, Error::InvalidArgument, kOp, "an argument is missing or of the wrong type");
  if (!succeeded(context, kOp, version == kFbankVersion && known_flags ? Status::kOk : Status::kBadVersion)) return;
  if (!succeeded(context, kOp, fbank_check(options))) return;
  const int64_t batch = samples->size(0), frames = fbank_frames(options, samples->size(1));
  if (!succeeded(context, kOp, batch >= 1 && frames >= 1 ? Status::kOk : Status::kBadShape)) return;
  const int64_t size[] = {batch, frames, options.num_mel_bins};
  if (!resize(context, kOp, *out, size, 3)) return;

  // The tables are made anew at each call: the runtime keeps nothing for a kernel, and they take less time than a frame
  // of any network.
  const size_t plan_bytes = fbank_plan_bytes(options), scratch_bytes = fbank_scratch_bytes(options);
  const Result<void*> plan = context.allocate_temp(plan_bytes, kAlignment);
  const Result<void*> scratch = context.allocate_temp(scratch_bytes, kAlignment);
  if (!plan.ok() || !scratch.ok()) return fail(context, Error::MemoryAllocationFailed, kOp, "no temporary memory");
  if (!succeeded(context, kOp, fbank_plan(options, *plan, plan_bytes))) return;
  FbankTensors tensors;
  tensors.batch = batch;
  tensors.samples = samples->size(1);
  tensors.input = samples->const_data_ptr<float>();
  tensors.output = out->mutable_data_ptr<float>();
  succeeded(context, kOp, fbank_run(options, *plan, plan_bytes, tensors, *scratch, scratch_bytes));
}

}  // namespace voxpress::pte
