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
  bool low_memory = false;  // weights of our ops stay packed
  bool skip_accuracy = false;
};

// Writes `out`/engine.json and, unless accuracy is skipped, `out`/embeddings.safetensors (F32 [E] under the keys of the
// features file). Timing comes first, so that the first run, the resident sizes and the peak belong to one utterance of
// speed_frames frames in a fresh process. A run that was killed and is started again with the same model, features and
// `out` embeds only what is not in `out`/embeddings.journal yet. Says `progress <done> <total>` on the standard error
// stream.
// Throws InputError for files, utterances or models that do not fit together.
void run_engine(const VoxpressEngineApi& api, const RunOptions& options);

// What this machine is and how it is now: one JSON object {"machine", "state"}, as in engine.json.
std::string describe_machine();

// Keeps a loaded model and answers requests, so that a comparison can let processes take turns. Each line read from the
// standard input is a request, each line written to the standard output its answer, one JSON object:
//
//   (once loaded and run for the first time)  {"engine", "runtime_version", "threads", "kernels", "delegates",
//                                  "load_ns", "first_ns", and resident_..._bytes before, after load, after the first
//                                  run}
//   run WARMUP RUNS                {"latency_ns": [RUNS numbers]}
//   embed                          {"embeddings": {utterance: [E numbers]}}
//   memory                         {"resident_bytes", "peak_bytes", "kernels"}
//
// The utterance that is run is the one that `run_engine` times. Ends when the standard input does. Throws InputError as
// run_engine does, and for a request that is none of these.
void serve_engine(const VoxpressEngineApi& api, const RunOptions& options);

}  // namespace voxpress::harness
