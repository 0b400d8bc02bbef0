#include "frontend/chunks.h"

#include <cmath>
#include <cstdint>

#include "base/checked.h"

namespace voxpress {
namespace {

constexpr int64_t kMaxFrames = int64_t{1} << 31;  // so that index * frames fits in 64 bits

}  // namespace

int64_t chunk_count(int64_t frames, int64_t chunk_frames) {
  if (frames < 1 || chunk_frames < 0 || frames > kMaxFrames || chunk_frames > kMaxFrames) return 0;
  return chunk_frames == 0 ? 1 : (frames + chunk_frames - 1) / chunk_frames;
}

int64_t chunk_start(int64_t frames, int64_t chunk_frames, int64_t index) {
  const int64_t count = chunk_count(frames, chunk_frames);
  return count < 2 || index < 0 || index >= count ? 0 : index * (frames - chunk_frames) / (count - 1);
}

Status chunk_normalise(float* values, int64_t frames, int64_t mel) {
  int64_t count;
  if (!element_count(&count, frames, mel)) return Status::kBadShape;
  if (values == nullptr) return Status::kNullPointer;
  for (int64_t m = 0; m < mel; ++m) {
    double sum = 0;
    for (int64_t t = 0; t < frames; ++t) sum += static_cast<double>(values[t * mel + m]);
    const double mean = sum / static_cast<double>(frames);
    for (int64_t t = 0; t < frames; ++t) {
      values[t * mel + m] = static_cast<float>(static_cast<double>(values[t * mel + m]) - mean);
    }
  }
  return Status::kOk;
}

Status chunk_add(const float* embedding, int64_t dim, double* sum) {
  if (dim < 1) return Status::kBadShape;
  if (embedding == nullptr || sum == nullptr) return Status::kNullPointer;
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) squares += static_cast<double>(embedding[i]) * static_cast<double>(embedding[i]);
  if (squares == 0) return Status::kOk;
  const double length = std::sqrt(squares);
  for (int64_t i = 0; i < dim; ++i) sum[i] += static_cast<double>(embedding[i]) / length;
  return Status::kOk;
}

Status chunk_mean(const double* sum, int64_t dim, int64_t count, float* embedding) {
  if (dim < 1 || count < 1) return Status::kBadShape;
  if (sum == nullptr || embedding == nullptr) return Status::kNullPointer;
  for (int64_t i = 0; i < dim; ++i) embedding[i] = static_cast<float>(sum[i] / static_cast<double>(count));
  return Status::kOk;
}

}  // namespace voxpress
