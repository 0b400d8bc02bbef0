/* What the harness asks of an inference engine: open a model, describe it, run utterances, close it. Plain C, so that
 * an engine can be another library in another language. A handle is used from one thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VOXPRESS_ENGINE_ABI 4

typedef struct VoxpressEngine VoxpressEngine;

/* Why a call failed: one line, closed by a zero, without the name of the model or of the utterance. */
typedef struct VoxpressEngineError {
  char text[512];
} VoxpressEngineError;

/* What to open and with what. Texts are read during the call only. */
typedef struct VoxpressEngineRequest {
  const char* model_path;
  int32_t threads;
  int32_t low_memory; /* not 0: weights of our ops stay packed and are expanded at each call; with ExecuTorch those of
                         every model of the process */
  /* Libraries of an engine that loads its runtime when it is opened; null or "": found as the system finds libraries.
   */
  const char* runtime_library;
  const char* delegate_library;
} VoxpressEngineRequest;

/* What a loaded model takes and gives. Texts live as long as the handle.
 *
 * An utterance is features [frames, mel_bins], or samples [S] where mel_bins is 0: then `frames` frames take
 * (frames - 1) * shift_samples + window_samples of them. */
typedef struct VoxpressEngineInfo {
  const char* engine;             /* "executorch", "litert" */
  const char* runtime_version;    /* "1.5.1", ...; "" where the runtime does not say */
  const char* delegates;          /* comma separated, sorted, "" for none */
  int32_t threads;                /* as the runtime has them, which may differ from what was asked for */
  int64_t min_frames, max_frames; /* of one run */
  int64_t mel_bins;               /* 0: the model takes samples */
  int64_t window_samples, shift_samples;
  int64_t chunk_frames; /* longer utterances are embedded in chunks of so many frames, see frontend/chunks.h; 0: not */
  int64_t embedding_dim;
} VoxpressEngineInfo;

/* What our ops hold in this process, see exporters/prepared/memory_use.h. */
typedef struct VoxpressMemoryUse {
  size_t weight_bytes;  /* packed weights, now */
  size_t scratch_bytes; /* the most that a layer was given so far */
} VoxpressMemoryUse;

typedef struct VoxpressEngineApi {
  int32_t abi; /* VOXPRESS_ENGINE_ABI */
  /* Loads a model. Null on failure, with the reason in `error`. */
  VoxpressEngine* (*open)(const VoxpressEngineRequest* request, VoxpressEngineError* error);
  void (*describe)(const VoxpressEngine* engine, VoxpressEngineInfo* info);
  /* Embeds one utterance, features of `length` frames or `length` samples, to embedding [embedding_dim] in one run. 0
   * on success. */
  int32_t (*run)(VoxpressEngine* engine, const float* utterance, int64_t length, float* embedding,
                 VoxpressEngineError* error);
  /* Names of our kernels that ran so far, comma separated, cut to `size` bytes with the closing zero. Returns the
   * length of the whole text. */
  size_t (*kernels_used)(const VoxpressEngine* engine, char* text, size_t size);
  void (*memory_use)(const VoxpressEngine* engine, VoxpressMemoryUse* use);
  void (*close)(VoxpressEngine* engine);
} VoxpressEngineApi;

/* The engines there are, each in a library of its own: executorch_engine.cc, tflite_engine.cc. */
const VoxpressEngineApi* voxpress_executorch_engine(void);
const VoxpressEngineApi* voxpress_tflite_engine(void);

#ifdef __cplusplus
}
#endif
