#include "prepared/run_layer.h"

#include <algorithm>
#include <atomic>

#include "prepared/memory_use.h"
#include "prepared/thread_pool.h"

namespace voxpress {
namespace {

constexpr double kFewestProducts = 1 << 18;  // of a part: below, handing it over takes longer than doing it

// Threads that a layer is worth, of those that there are.
int32_t useful_threads(const Conv2dShape& s, int32_t threads) {
  const double products = static_cast<double>(s.batch * conv2d_out_frames(s) * conv2d_out_mel(s) * s.out_channels) *
                          static_cast<double>(s.kernel_frames * s.kernel_mel * (s.in_channels / s.groups));
  const double worth = products / kFewestProducts;
  const int32_t most = threads < kMaxThreads ? threads : kMaxThreads;
  if (worth < 2.0 || most < 2) return 1;
  return worth < most ? static_cast<int32_t>(worth) : most;
}

// More parts than threads, where the map is large enough for that: a thread that is held up leaves some to the others.
constexpr int32_t kPartsPerThread = 3;
constexpr int64_t kFewestPositions = 240;  // of a part

int32_t useful_parts(const Conv2dShape& s, int32_t threads) {
  const int64_t positions = s.batch * conv2d_out_frames(s) * conv2d_out_mel(s);
  const int64_t each = std::clamp<int64_t>(positions / (kFewestPositions * threads), 1, kPartsPerThread);
  return threads == 1 ? 1 : threads * static_cast<int32_t>(each);
}

const Conv2dShape& geometry(const Conv2dShape& shape) { return shape; }
const Conv2dShape& geometry(const Conv2dU8Shape& shape) { return shape.conv; }

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Scratch of one thread.
size_t thread_scratch_bytes(const Conv2dShape& shape, bool packed) {
  return round_up(packed ? conv2d_packed_scratch_bytes(shape) : conv2d_scratch_bytes(shape));
}
size_t thread_scratch_bytes(const Conv2dU8Shape& shape, bool) {
  return round_up(conv2d_u8_packed_scratch_bytes(shape));
}

// Whether each part expands all weights for itself.
bool expands_by_part(const Conv2dShape&, bool packed) { return !packed; }
bool expands_by_part(const Conv2dU8Shape&, bool) { return false; }

// Scratch that all threads of a call share: in mode `fast` and low memory, the layer's packed weights.
size_t shared_scratch_bytes(const Conv2dShape&, bool) { return 0; }
size_t shared_scratch_bytes(const Conv2dU8Shape& shape, bool packed) {
  return packed ? 0 : round_up(conv2d_u8_packed_bytes(shape));
}

template <typename Shape>
size_t all_scratch_bytes(const Shape& shape, bool packed, int32_t threads) {
  const size_t each = thread_scratch_bytes(shape, packed);
  if (each == 0) return 0;
  return shared_scratch_bytes(shape, packed) + each * static_cast<size_t>(useful_threads(geometry(shape), threads));
}

template <typename Shape, typename Tensors>
struct Parts {
  const LayerCall<Shape, Tensors>* call;
  int32_t threads;
  int32_t parts;
  size_t scratch_bytes;  // of each thread
  unsigned char* scratch;
  const void* packed;
  size_t packed_bytes;
  std::atomic<int32_t> status{0};  // of the last part that failed
};

Status run_part(const Parts<Conv2dShape, Conv2dTensors>& all, void* scratch, const Share& share) {
  const LayerCall<Conv2dShape, Conv2dTensors>& call = *all.call;
  if (all.packed == nullptr) {
    return conv2d_run(*call.shape, *call.weights, *call.tensors, scratch, all.scratch_bytes, share);
  }
  return conv2d_run_packed(*call.shape, all.packed, all.packed_bytes, *call.tensors, scratch, all.scratch_bytes, share);
}

Status run_part(const Parts<Conv2dU8Shape, Conv2dU8Tensors>& all, void* scratch, const Share& share) {
  return conv2d_u8_run_packed(*all.call->shape, all.packed, all.packed_bytes, *all.call->tensors, scratch,
                              all.scratch_bytes, share);
}

template <typename All>
void run_body(void* context, int32_t part, int32_t thread) {
  auto& all = *static_cast<All*>(context);
  unsigned char* scratch = all.scratch + static_cast<size_t>(thread) * all.scratch_bytes;
  const Status status = run_part(all, scratch, {part, all.parts});
  if (status != Status::kOk) all.status.store(static_cast<int32_t>(status), std::memory_order_relaxed);
}

void pack_body(void* context, int32_t part, int32_t) {
  auto& all = *static_cast<Parts<Conv2dU8Shape, Conv2dU8Tensors>*>(context);
  const Status status = conv2d_u8_pack(*all.call->shape, *all.call->weights, const_cast<void*>(all.packed),
                                       all.packed_bytes, {part, all.parts});
  if (status != Status::kOk) all.status.store(static_cast<int32_t>(status), std::memory_order_relaxed);
}

// In mode `exact` the kernels read the codes themselves.
void pack_into_scratch(Parts<Conv2dShape, Conv2dTensors>*) {}

void pack_into_scratch(Parts<Conv2dU8Shape, Conv2dU8Tensors>* all) {
  const Conv2dU8Shape& shape = *all->call->shape;
  all->packed = all->scratch;
  all->packed_bytes = conv2d_u8_packed_bytes(shape);
  all->scratch += shared_scratch_bytes(shape, false);
  run_parts(all->parts, all->threads, pack_body, all);
}

// Of a shape that wants no scratch.
Status why_bad(const LayerCall<Conv2dShape, Conv2dTensors>&) { return Status::kBadShape; }
Status why_bad(const LayerCall<Conv2dU8Shape, Conv2dU8Tensors>& call) {
  return conv2d_u8_run_packed(*call.shape, nullptr, 0, *call.tensors, nullptr, 0);
}

template <typename Shape, typename Tensors>
Status run_any(const LayerCall<Shape, Tensors>& call) {
  using All = Parts<Shape, Tensors>;
  const bool packed = call.packed != nullptr;
  const size_t needed = layer_scratch_bytes(*call.shape, packed, call.threads);
  if (needed == 0) return why_bad(call);
  if (call.scratch == nullptr) return Status::kNullPointer;
  if (call.scratch_bytes < needed) return Status::kBadBufferSize;
  count_scratch(needed);
  All all;
  all.call = &call;
  all.threads = useful_threads(geometry(*call.shape), call.threads);
  all.parts = expands_by_part(*call.shape, packed) ? all.threads : useful_parts(geometry(*call.shape), all.threads);
  all.scratch_bytes = thread_scratch_bytes(*call.shape, packed);
  all.scratch = static_cast<unsigned char*>(call.scratch);
  all.packed = packed ? call.packed->data() : nullptr;
  all.packed_bytes = packed ? call.packed->size_bytes() : 0;
  if (!packed) {
    pack_into_scratch(&all);
    if (all.status.load() != 0) return static_cast<Status>(all.status.load());
  }
  run_parts(all.parts, all.threads, run_body<All>, &all);
  return static_cast<Status>(all.status.load());
}

}  // namespace

size_t layer_scratch_bytes(const Conv2dShape& shape, bool packed, int32_t threads) {
  return all_scratch_bytes(shape, packed, threads);
}

size_t layer_scratch_bytes(const Conv2dU8Shape& shape, bool packed, int32_t threads) {
  return all_scratch_bytes(shape, packed, threads);
}

Status run_layer(const LayerCall<Conv2dShape, Conv2dTensors>& call) { return run_any(call); }
Status run_layer(const LayerCall<Conv2dU8Shape, Conv2dU8Tensors>& call) { return run_any(call); }

}  // namespace voxpress
