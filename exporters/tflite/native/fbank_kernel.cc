#include "fbank_kernel.h"

#include <cstdint>
#include <new>

#include "kernel.h"
#include "options.h"

namespace voxpress::tflite {
namespace {

struct FbankNode {
  const char* problem = nullptr;  // found at creation, reported in prepare: creation itself cannot fail
  int32_t input = -1, output = -1;
  FbankOptions options;
  void* plan = nullptr;
  size_t plan_bytes = 0;
  Scratch* scratch = nullptr;
  int64_t batch = 0, samples = 0;
};

constexpr std::align_val_t kAlignment{64};

const char* take_tensors(const Context& context, const Node& node, FbankNode* fbank) {
  if (node.inputs == nullptr || node.inputs->size != 1) return "wrong number of inputs";
  if (node.outputs == nullptr || node.outputs->size != 1) return "wrong number of outputs";
  fbank->input = node.inputs->data[0];
  fbank->output = node.outputs->data[0];
  const auto known = [&](int32_t index) { return index >= 0 && static_cast<size_t>(index) < context.tensors_size; };
  return known(fbank->input) && known(fbank->output) ? nullptr : "the input or the output is missing";
}

const char* make_plan(FbankNode* fbank) {
  const Status status = fbank_check(fbank->options);
  if (status != Status::kOk) return status_text(status);
  fbank->plan_bytes = fbank_plan_bytes(fbank->options);
  fbank->plan = ::operator new(fbank->plan_bytes, kAlignment, std::nothrow);
  if (fbank->plan == nullptr) return "no memory for tables";
  return fbank_plan(fbank->options, fbank->plan, fbank->plan_bytes) == Status::kOk ? nullptr : "no tables";
}

const char* parse_node(Context* context, const DelegateParams& params, FbankNode* fbank) {
  CustomNode found;
  if (const char* problem = find_node(context, params, &found)) return problem;
  if (const char* problem = parse_fbank_options(found.options, found.options_bytes, &fbank->options)) return problem;
  if (const char* problem = take_tensors(*context, *found.node, fbank)) return problem;
  return make_plan(fbank);
}

int32_t fail(Context* context, const char* problem) {
  context->report_error(context, "%s: %s", kFbankName, problem);
  return kTfError;
}

void* init(Context* context, const char* buffer, size_t) {
  auto* fbank = new (std::nothrow) FbankNode;
  if (fbank == nullptr) return nullptr;
  fbank->problem = parse_node(context, *reinterpret_cast<const DelegateParams*>(buffer), fbank);
  if (building != nullptr) {
    fbank->scratch = building->scratch;
    fbank->scratch->retain();
  } else if (fbank->problem == nullptr) {
    fbank->problem = "created outside of the delegate";
  }
  return fbank;
}

void release(Context*, void* buffer) {
  auto* fbank = static_cast<FbankNode*>(buffer);
  if (fbank == nullptr) return;
  ::operator delete(fbank->plan, kAlignment);
  if (fbank->scratch != nullptr) fbank->scratch->release();
  delete fbank;
}

int32_t prepare(Context* context, Node* node) {
  auto* fbank = static_cast<FbankNode*>(node->user_data);
  if (fbank == nullptr) return fail(context, "no memory for a delegate kernel");
  if (fbank->problem != nullptr) return fail(context, fbank->problem);
  const Tensor& input = context->tensors[fbank->input];
  if (input.type != kTfFloat32 || input.dims == nullptr || input.dims->size != 2) {
    return fail(context, "the samples are not float32 [N, samples]");
  }
  fbank->batch = input.dims->data[0];
  fbank->samples = input.dims->data[1];
  const int64_t frames = fbank_frames(fbank->options, fbank->samples);
  if (fbank->batch < 1 || frames < 1) return fail(context, status_text(Status::kBadShape));
  if (context->tensors[fbank->output].type != kTfFloat32) return fail(context, "the output is not float32");
  if (!fbank->scratch->reserve(fbank_scratch_bytes(fbank->options))) return fail(context, "no memory for scratch");
  const int64_t dims[] = {fbank->batch, frames, fbank->options.num_mel_bins};
  return resize_tensor(context, fbank->output, dims, 3) ? kTfOk : fail(context, "the output cannot be resized");
}

int32_t invoke(Context* context, Node* node) {
  const auto& fbank = *static_cast<const FbankNode*>(node->user_data);
  const Tensor& input = context->tensors[fbank.input];
  Tensor& output = context->tensors[fbank.output];
  FbankTensors tensors;
  tensors.batch = fbank.batch;
  tensors.samples = fbank.samples;
  tensors.input = static_cast<const float*>(input.data);
  tensors.output = static_cast<float*>(output.data);
  // Activations must have the size they had in prepare; a runtime that resized one without asking again is stopped
  // here.
  const auto bytes = [](int64_t elements) { return static_cast<size_t>(elements) * sizeof(float); };
  const int64_t values = fbank_frames(fbank.options, fbank.samples) * fbank.options.num_mel_bins;
  if (input.bytes != bytes(fbank.batch * fbank.samples) || output.bytes != bytes(fbank.batch * values)) {
    return fail(context, status_text(Status::kBadBufferSize));
  }
  const Status status =
      fbank_run(fbank.options, fbank.plan, fbank.plan_bytes, tensors, fbank.scratch->data(), fbank.scratch->size());
  return status == Status::kOk ? kTfOk : fail(context, status_text(status));
}

}  // namespace

Registration fbank_registration() {
  Registration registration = {};
  registration.init = init;
  registration.free = release;
  registration.prepare = prepare;
  registration.invoke = invoke;
  registration.custom_name = "VoxPressFbank";
  registration.version = 1;
  return registration;
}

}  // namespace voxpress::tflite
