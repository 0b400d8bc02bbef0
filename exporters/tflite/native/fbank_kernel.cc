#include "fbank_kernel.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernel.h"

namespace voxpress::tflite {
namespace {

struct Options {
  char magic[4];
  uint16_t version;
  uint8_t window;
  uint8_t flags;
  int32_t sample_rate_hz, window_samples, shift_samples, num_mel_bins;
  float sample_scale, preemphasis, low_hz, high_hz;
  int32_t reserved;
};
static_assert(sizeof(Options) == 44, "the struct is the file format");

enum Flag : uint8_t { kRoundToPowerOfTwo = 1, kRemoveDcOffset = 2, kUsePower = 4, kUseLog = 8, kMeanNormalise = 16 };
constexpr uint8_t kAllFlags = 31;

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
  Node* node = nullptr;
  Registration* registration = nullptr;
  if (params.nodes_to_replace == nullptr || params.nodes_to_replace->size != 1 ||
      context->get_node_and_registration(context, params.nodes_to_replace->data[0], &node, &registration) != kTfOk) {
    return "the runtime gave no single custom node";
  }
  const size_t size = node->custom_initial_data_size < 0 ? 0 : static_cast<size_t>(node->custom_initial_data_size);
  if (const char* problem = parse_fbank_options(node->custom_initial_data, size, &fbank->options)) return problem;
  if (const char* problem = take_tensors(*context, *node, fbank)) return problem;
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
  auto* size = static_cast<IntArray*>(std::malloc(sizeof(int32_t) * 4));  // the runtime takes it and calls free
  if (size == nullptr) return fail(context, "no memory for a shape");
  size->size = 3;
  size->data[0] = static_cast<int32_t>(fbank->batch);
  size->data[1] = static_cast<int32_t>(frames);
  size->data[2] = fbank->options.num_mel_bins;
  const int32_t status = context->resize_tensor(context, &context->tensors[fbank->output], size);
  return status == kTfOk ? kTfOk : fail(context, "the output cannot be resized");
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

const char* parse_fbank_options(const void* bytes, size_t size, FbankOptions* options) {
  Options raw;
  if (bytes == nullptr || size != sizeof raw) return "custom options have the wrong size";
  std::memcpy(&raw, bytes, sizeof raw);
  if (std::memcmp(raw.magic, "VXFB", 4) != 0) return "custom options have the wrong magic";
  if (raw.version != kFbankVersion) return status_text(Status::kBadVersion);
  if (raw.reserved != 0 || (raw.flags & ~kAllFlags) != 0) return "custom options use a reserved field";
  options->sample_rate_hz = raw.sample_rate_hz;
  options->window_samples = raw.window_samples;
  options->shift_samples = raw.shift_samples;
  options->num_mel_bins = raw.num_mel_bins;
  options->sample_scale = raw.sample_scale;
  options->preemphasis = raw.preemphasis;
  options->low_hz = raw.low_hz;
  options->high_hz = raw.high_hz;
  options->window = static_cast<FbankWindow>(raw.window);
  options->round_to_power_of_two = (raw.flags & kRoundToPowerOfTwo) != 0;
  options->remove_dc_offset = (raw.flags & kRemoveDcOffset) != 0;
  options->use_power = (raw.flags & kUsePower) != 0;
  options->use_log = (raw.flags & kUseLog) != 0;
  options->mean_normalise = (raw.flags & kMeanNormalise) != 0;
  return nullptr;
}

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
