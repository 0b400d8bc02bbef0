// The front end of a bundle: samples in, mean-normalised features out.
#pragma once

#include <cstdint>
#include <vector>

#include "frontend/fbank.h"

namespace voxpress::core {

// Holds the tables of one set of options; `features` of one object is called from one thread at a time.
class Features {
 public:
  // The options have passed fbank_check.
  explicit Features(const FbankOptions& options);

  // [frames, mel] of at least a window's samples.
  const std::vector<float>& of(const float* samples, int64_t count);

 private:
  FbankOptions options_;
  std::vector<double> plan_, scratch_;  // doubles for their alignment
  std::vector<float> features_;
};

}  // namespace voxpress::core
