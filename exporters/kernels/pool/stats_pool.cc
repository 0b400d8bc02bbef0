#include "pool/stats_pool.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/checked.h"
#include "base/usage.h"

namespace voxpress {
namespace {

constexpr double kEpsilon = 1e-7;
constexpr int kBlock = 64;

using StatsPoolKernel = void (*)(const StatsPoolShape& shape, const float* input, float* output);

// Two passes in double over 64 columns at a time: the deviation is taken from the mean, so nothing cancels.
void statspool_f32_none_1x64_portable(const StatsPoolShape& shape, const float* input, float* output) {
  const int64_t columns = shape.mel * shape.channels;
  for (int64_t n = 0; n < shape.batch; ++n, input += shape.frames * columns, output += 2 * columns) {
    for (int64_t first = 0; first < columns; first += kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(kBlock, columns - first));
      double mean[kBlock] = {};
      double squares[kBlock] = {};
      for (int64_t t = 0; t < shape.frames; ++t) {
        const float* x = input + t * columns + first;
        for (int j = 0; j < count; ++j) mean[j] += static_cast<double>(x[j]);
      }
      for (int j = 0; j < count; ++j) mean[j] /= static_cast<double>(shape.frames);
      for (int64_t t = 0; t < shape.frames; ++t) {
        const float* x = input + t * columns + first;
        for (int j = 0; j < count; ++j) {
          const double deviation = static_cast<double>(x[j]) - mean[j];
          squares[j] += deviation * deviation;
        }
      }
      const double divisor = static_cast<double>(std::max<int64_t>(1, shape.frames - 1));
      for (int j = 0; j < count; ++j) {
        output[first + j] = static_cast<float>(mean[j]);
        output[columns + first + j] = static_cast<float>(std::sqrt(squares[j] / divisor + kEpsilon));
      }
    }
  }
}

struct Choice {
  Kernel id;
  StatsPoolKernel run;
};

constexpr Choice kKernels[] = {
#define VOXPRESS_STATSPOOL_KERNEL(name) {Kernel::name, name},
#include "kernels.inc"
};

}  // namespace

Status stats_pool_check(const StatsPoolShape& shape) {
  int64_t count;
  const bool fits = element_count(&count, shape.batch, shape.frames, shape.mel, shape.channels) &&
                    element_count(&count, shape.batch, int64_t{2}, shape.mel, shape.channels);
  return fits ? Status::kOk : Status::kBadShape;
}

Status stats_pool_run(const StatsPoolShape& shape, const float* input, float* output) {
  const Status status = stats_pool_check(shape);
  if (status != Status::kOk) return status;
  if (input == nullptr || output == nullptr) return Status::kNullPointer;
  kKernels[0].run(shape, input, output);
  mark_used(kKernels[0].id);
  return Status::kOk;
}

const char* stats_pool_kernel_name() { return kernel_name(kKernels[0].id); }

}  // namespace voxpress
