// Runs an engine over a file of utterances: timings of one fixed length first, then every utterance's embedding.
#pragma once

#include <cstdint>
#include <string>

#include "engine.h"

namespace voxpress::harness {

struct RunOptions {
  std::string model, features, out;
  std::string model_sha256;                       // what the file must be; "": anything
  std::string runtime_library, delegate_library;  // of an engine that loads them, else ""
  std::string runtime_version;                    // of a runtime that does not know its own
  int64_t warmup = 2;                             // runs after the first that are not kept
  int64_t runs = 10;                              // runs that are kept
  int64_t speed_frames = 200;                     // length of the utterance that is timed
  int32_t threads = 1;
  bool skip_accuracy = false;
};

// Writes `out`/engine.json and, unless accuracy is skipped, `out`/embeddings.safetensors (F32 [E] under the keys of the
// features file). Timing comes first, so that the first run, the resident sizes and the peak belong to one utterance of
// speed_frames frames in a fresh process. A run that was killed and is started again with the same model, features and
// `out` embeds only what is not in `out`/embeddings.journal yet. Says `progress <done> <total>` on the standard error
// stream.
// Throws InputError for files, utterances or models that do not fit together.
void run_engine(const VoxpressEngineApi& api, const RunOptions& options);

}  // namespace voxpress::harness
