// An open bundle: embeds, enrols and verifies. What voxpress.h offers to apps, with exceptions instead of statuses.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.h"
#include "engines.h"
#include "frontend.h"
#include "voice.h"

namespace voxpress::core {

// The speaker was closed while a call waited for its turn.
class ClosedError : public std::runtime_error {
 public:
  ClosedError() : std::runtime_error("expected an open bundle, found one that was closed") {}
};

struct SpeakerOptions {
  std::string format, label, mode, operating_point;  // "": the default
  int32_t threads = 1;
  std::string runtime_library, delegate_library;
};

struct Decision {
  double score = 0, llr = 0;
  bool accepted = false;
};

// Calls may come from any thread; those of one speaker run one after another.
class Speaker {
 public:
  // Takes a bundle that was checked. Throws InputError if it holds no model or calibration as the options want it.
  Speaker(Bundle bundle, const SpeakerOptions& options);
  ~Speaker();
  Speaker(const Speaker&) = delete;
  Speaker& operator=(const Speaker&) = delete;

  // What follows throws InputError for samples that are too short, too long or not finite, and ClosedError.
  std::vector<float> embed(const float* samples, size_t count);
  Voice enroll(const std::vector<std::pair<const float*, size_t>>& utterances);
  Decision verify(const Voice& voice, const float* samples, size_t count);

  // Calls that have not begun yet throw ClosedError from now on.
  void close() { closed_ = true; }

  const Bundle& bundle() const { return bundle_; }
  const BundledModel& model() const { return model_; }
  const OperatingPoint& operating_point() const { return point_; }
  const VoxpressEngineInfo& engine() const { return info_; }
  VoiceSpace space() const;
  int64_t min_samples() const;
  int64_t max_samples() const;  // 0: no limit but memory

 private:
  struct CloseEngine {
    const LinkedEngine* linked;
    void operator()(VoxpressEngine* engine) const;
  };

  int64_t samples_of(int64_t frames) const;
  void embed_once(const float* samples, int64_t count, std::vector<float>* embedding);

  Bundle bundle_;
  const LinkedEngine* linked_ = nullptr;
  BundledModel model_;
  Calibration calibration_;
  OperatingPoint point_;
  Features features_;
  std::unique_ptr<VoxpressEngine, CloseEngine> engine_;
  VoxpressEngineInfo info_ = {};
  std::atomic<bool> closed_{false};
  std::mutex turn_;
};

}  // namespace voxpress::core
