// The external delegate: claims the custom nodes by name and hands each to a kernel of its own.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "abi.h"
#include "base/usage.h"
#include "fbank_kernel.h"
#include "kernel.h"
#include "prepared/memory_use.h"
#include "prepared/settings.h"

#define VOXPRESS_EXPORT extern "C" __attribute__((visibility("default")))

namespace voxpress::tflite {
namespace {

// Nodes and registrations lie in one array of pairs. If their distances are not those of the layouts in abi.h, the
// runtime is one we do not know, and nothing in its structs may be believed.
constexpr ptrdiff_t kPairStride = sizeof(Node) + sizeof(Registration);
static_assert(kPairStride == 168);

class LayoutCheck {
 public:
  bool ok(int32_t index, const Node* node, const Registration* registration) {
    const auto node_at = reinterpret_cast<intptr_t>(node);
    if (reinterpret_cast<intptr_t>(registration) - node_at != static_cast<ptrdiff_t>(sizeof(Node))) return false;
    const intptr_t first_at = node_at - index * kPairStride;
    if (first_at_ == 0) first_at_ = first_at;
    return first_at == first_at_;
  }

 private:
  intptr_t first_at_ = 0;
};

bool is_named(const Registration& registration, const char* name) {
  return registration.custom_name != nullptr && std::strcmp(registration.custom_name, name) == 0;
}

bool is_ours(const Registration& registration) {
  return is_named(registration, kConv2dName) || is_named(registration, kConv2dU8Name) ||
         is_named(registration, kStatsPoolName) || is_named(registration, kFbankName);
}

// Hands one node to a kernel of ours.
int32_t claim(Context* context, Delegate* delegate, int32_t index) {
  Node* node = nullptr;
  Registration* registration = nullptr;
  if (context->get_node_and_registration(context, index, &node, &registration) != kTfOk) return kTfError;
  const Registration ours = is_named(*registration, kFbankName) ? fbank_registration() : kernel_registration();
  const IntArray one = {1, {index}};
  return context->replace_node_subsets(context, ours, &one, delegate);
}

// The indices of our nodes, copied: the runtime's own plan changes while nodes are replaced. Null on an error,
// reported.
int32_t* claimed_nodes(Context* context, int32_t* count) {
  IntArray* plan = nullptr;
  *count = 0;
  if (context->get_execution_plan(context, &plan) != kTfOk || plan == nullptr || plan->size < 0) {
    context->report_error(context, "voxpress: the runtime gave no execution plan");
    return nullptr;
  }
  auto* nodes = new (std::nothrow) int32_t[static_cast<size_t>(plan->size) + 1];
  if (nodes == nullptr) {
    context->report_error(context, "voxpress: no memory for the list of nodes");
    return nullptr;
  }
  LayoutCheck layout;
  for (int32_t j = 0; j < plan->size; ++j) {
    const int32_t index = plan->data[j];
    Node* node = nullptr;
    Registration* registration = nullptr;
    if (context->get_node_and_registration(context, index, &node, &registration) != kTfOk ||
        !layout.ok(index, node, registration)) {
      context->report_error(context, "voxpress: this runtime's structs are laid out in a way this build does not know");
      delete[] nodes;
      return nullptr;
    }
    if (is_ours(*registration)) nodes[(*count)++] = index;
  }
  return nodes;
}

int32_t prepare(Context* context, Delegate* delegate) {
  int32_t count = 0;
  int32_t* nodes = claimed_nodes(context, &count);
  if (nodes == nullptr) return kTfError;
  int32_t status = kTfOk;
  Scratch* scratch = Scratch::create();
  if (scratch == nullptr) {
    context->report_error(context, "voxpress: no memory for scratch");
    status = kTfError;
  }
  const Building shared = {static_cast<Store*>(delegate->data), scratch};
  building = status == kTfOk ? &shared : nullptr;
  // One call per node: neighbours handed over together would be merged, and the tensors between them get no memory.
  for (int32_t j = 0; j < count && status == kTfOk; ++j) status = claim(context, delegate, nodes[j]);
  building = nullptr;
  if (scratch != nullptr) scratch->release();
  delete[] nodes;
  return status;
}

}  // namespace
}  // namespace voxpress::tflite

// The one option is low_memory: 1 keeps weights packed and expands them at each call, 0 expands them once. Without it
// the environment says (see prepared/settings.h).
VOXPRESS_EXPORT voxpress::tflite::Delegate* tflite_plugin_create_delegate(const char* const* keys,
                                                                          const char* const* values, size_t count,
                                                                          void (*report_error)(const char*)) {
  bool low_memory = voxpress::low_memory_wanted();
  for (size_t j = 0; j < count; ++j) {
    const bool on = std::strcmp(values[j], "1") == 0;
    if (std::strcmp(keys[j], "low_memory") != 0 || !(on || std::strcmp(values[j], "0") == 0)) {
      if (report_error != nullptr) report_error("voxpress: the delegate's one option is low_memory, 0 or 1");
      return nullptr;
    }
    low_memory = on;
  }
  if (voxpress::apply_settings() != voxpress::Status::kOk) {
    if (report_error != nullptr) report_error(voxpress::kBadSettingsText);
    return nullptr;
  }
  auto* delegate = new (std::nothrow) voxpress::tflite::Delegate{};
  if (delegate == nullptr) return nullptr;
  delegate->data = voxpress::tflite::Store::create(low_memory);
  if (delegate->data == nullptr) {
    delete delegate;
    return nullptr;
  }
  delegate->prepare = voxpress::tflite::prepare;
  delegate->flags = voxpress::tflite::kAllowDynamicTensors;
  return delegate;
}

VOXPRESS_EXPORT void tflite_plugin_destroy_delegate(voxpress::tflite::Delegate* delegate) {
  if (delegate == nullptr) return;
  static_cast<voxpress::tflite::Store*>(delegate->data)->release();
  delete delegate;
}

VOXPRESS_EXPORT size_t voxpress_kernels_used(char* text, size_t size) { return voxpress::kernels_used(text, size); }

// As voxpress_memory_use of exporters/pte/native/register.h.
VOXPRESS_EXPORT void voxpress_memory_use(size_t* weight_bytes, size_t* scratch_bytes) {
  voxpress::memory_use(weight_bytes, scratch_bytes);
}
