#include "frontend.h"

#include <stdexcept>
#include <string>

#include "base/status.h"

namespace voxpress::core {
namespace {

void require(Status status) {
  if (status != Status::kOk) throw std::runtime_error(std::string("the front end: ") + status_text(status));
}

std::vector<double> room(size_t bytes) { return std::vector<double>((bytes + sizeof(double) - 1) / sizeof(double)); }

}  // namespace

Features::Features(const FbankOptions& options)
    : options_(options), plan_(room(fbank_plan_bytes(options))), scratch_(room(fbank_scratch_bytes(options))) {
  require(fbank_plan(options_, plan_.data(), fbank_plan_bytes(options_)));
}

const std::vector<float>& Features::of(const float* samples, int64_t count) {
  features_.resize(static_cast<size_t>(fbank_frames(options_, count) * options_.num_mel_bins));
  FbankTensors tensors;
  tensors.batch = 1;
  tensors.samples = count;
  tensors.input = samples;
  tensors.output = features_.data();
  require(fbank_run(options_, plan_.data(), fbank_plan_bytes(options_), tensors, scratch_.data(),
                    scratch_.size() * sizeof(double)));
  return features_;
}

}  // namespace voxpress::core
