/* VoxPress for apps: a voice is enrolled from a few utterances and verified later, by a model of a signed bundle.
 *
 * Plain C, for Kotlin through JNI and Swift through a module. All functions may be called from any thread at any time,
 * voxpress_close during another call included: that call ends as it would have, later ones answer VOXPRESS_CLOSED.
 *
 * Samples are floats in [-1, 1), mono, at the bundle's sample rate. Nothing here writes a file or knows a network.
 * Liveness is out of scope: a recording of the enrolled voice is that voice. */
#ifndef VOXPRESS_H
#define VOXPRESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __clang__
#define VOXPRESS_NONNULL _Nonnull
#define VOXPRESS_NULLABLE _Nullable
#else
#define VOXPRESS_NONNULL
#define VOXPRESS_NULLABLE
#endif

#define VOXPRESS_PUBLIC __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define VOXPRESS_ED25519_KEY_BYTES 32
#define VOXPRESS_ED25519_SIGNATURE_BYTES 64

/* An open bundle. A number, not an address: one that was closed is refused, whoever still holds it. 0: none. */
typedef uint64_t VoxpressHandle;

typedef enum VoxpressStatus {
  VOXPRESS_OK = 0,
  VOXPRESS_BAD_INPUT = 1, /* bundle, signature, samples or voice are not what they should be */
  VOXPRESS_CLOSED = 2,    /* the handle was closed, or never open */
  VOXPRESS_FAILED = 3     /* the machine: no memory, a model that broke off */
} VoxpressStatus;

/* Why a call failed: one line, closed by a zero, that names the file, what was expected and what was found. */
typedef struct VoxpressError {
  char text[512];
} VoxpressError;

/* Whether an Ed25519 signature (RFC 8032) of a message is one of this public key: not 0 if so. The platform's own
 * implementation: CryptoKit, java.security, Tink. Called within voxpress_open, on its thread. */
typedef int32_t (*VoxpressVerifySignature)(void* VOXPRESS_NULLABLE context, const uint8_t* VOXPRESS_NONNULL public_key,
                                           const uint8_t* VOXPRESS_NONNULL message, size_t message_bytes,
                                           const uint8_t* VOXPRESS_NONNULL signature);

/* What to open and whom to trust. Texts are read during voxpress_open only. Zeroed members are defaults where null or
 * 0 is allowed. */
typedef struct VoxpressOptions {
  /* A bundle's zip, as `voxpress release` writes it, or its folder, which stays as it is while the handle is open. */
  const char* VOXPRESS_NONNULL bundle;
  /* PEM blocks of public keys, one of which must have signed the bundle (`voxpress bundle key` writes them). */
  const char* VOXPRESS_NONNULL public_keys;
  VoxpressVerifySignature VOXPRESS_NONNULL verify_signature;
  void* VOXPRESS_NULLABLE verify_context;
  const char* VOXPRESS_NULLABLE min_version;     /* "1.2.0": older bundles are refused; null: none are */
  const char* VOXPRESS_NULLABLE format;          /* "pte" or "tflite"; null: the first of them that can be run here */
  const char* VOXPRESS_NULLABLE label;           /* the artifact, as "4bit"; null: the bundle's primary one */
  const char* VOXPRESS_NULLABLE mode;            /* "exact" or "fast"; null: "exact" */
  const char* VOXPRESS_NULLABLE operating_point; /* of the calibration, as "far-1%"; null: "eer" */
  int32_t threads;                               /* of one inference, for all handles of the process; 0: 1 */
  /* For .tflite: libraries of the runtime and of our delegate; null: found as the system finds libraries. */
  const char* VOXPRESS_NULLABLE runtime_library;
  const char* VOXPRESS_NULLABLE delegate_library;
  /* For a zip: a folder of the app that models are unpacked into, once for each bundle, as they are mapped from files;
   * it is made if it is not there. Best one that backups leave out. */
  const char* VOXPRESS_NULLABLE storage;
} VoxpressOptions;

/* What was opened. */
typedef struct VoxpressInfo {
  char name[68], version[36];   /* of the bundle */
  char signed_by[20];           /* id of the key whose signature was verified */
  char model[244];              /* the file that runs, by its path in the bundle */
  char engine[20], runtime[36]; /* "executorch", "1.5.1" */
  char operating_point[44];     /* whose threshold decides */
  double threshold;             /* of the score */
  int32_t sample_rate_hz;
  int32_t embedding_dim;
  int64_t min_samples, max_samples; /* of one utterance; max 0: no limit but memory */
  size_t voice_bytes;               /* what a voice takes */
} VoxpressInfo;

/* Whether an utterance is of the enrolled voice. */
typedef struct VoxpressDecision {
  double score;     /* cosine of the utterance's embedding and the voice */
  double llr;       /* calibrated log-likelihood ratio, natural units: log P(score | same) / P(score | different) */
  int32_t accepted; /* 1 if the score is at least the threshold, else 0 */
} VoxpressDecision;

/* One utterance. */
typedef struct VoxpressSamples {
  const float* VOXPRESS_NONNULL data;
  size_t count;
} VoxpressSamples;

/* Opens a bundle: verifies the manifest's signature by one of the keys, then the sha256 of every file that is there,
 * then maps the model. Of a zip, the models are unpacked first, unless they were before, if every file in it is the
 * manifest's; what was unpacked is verified at every open. Files that this use does not need may be left out of the
 * folder; files that the manifest does not name are refused. Returns 0 on failure. */
VOXPRESS_PUBLIC VoxpressHandle voxpress_open(const VoxpressOptions* VOXPRESS_NONNULL options,
                                             VoxpressError* VOXPRESS_NONNULL error);

/* Closes a handle. Its model is unloaded when the calls that are running have ended. Closing twice does nothing. */
VOXPRESS_PUBLIC void voxpress_close(VoxpressHandle handle);

VOXPRESS_PUBLIC VoxpressStatus voxpress_info(VoxpressHandle handle, VoxpressInfo* VOXPRESS_NONNULL info,
                                             VoxpressError* VOXPRESS_NONNULL error);

/* Embeds one utterance: `embedding` takes info.embedding_dim floats, of any length as a vector. */
VOXPRESS_PUBLIC VoxpressStatus voxpress_embed(VoxpressHandle handle, VoxpressSamples samples,
                                              float* VOXPRESS_NONNULL embedding, VoxpressError* VOXPRESS_NONNULL error);

/* Enrols a voice from one or more utterances: the mean of their embeddings, each scaled to length 1, scaled to length 1
 * again. `voice` takes info.voice_bytes bytes, which may be stored; they hold the embedding and what it fits to, and
 * identify a person: store them encrypted. */
VOXPRESS_PUBLIC VoxpressStatus voxpress_enroll(VoxpressHandle handle,
                                               const VoxpressSamples* VOXPRESS_NONNULL utterances, size_t count,
                                               uint8_t* VOXPRESS_NONNULL voice, VoxpressError* VOXPRESS_NONNULL error);

/* Whether an utterance is of a voice that was enrolled with this bundle, or with another version of the same artifact
 * with the same major version (releases count up the major version when enrolled voices break). */
VOXPRESS_PUBLIC VoxpressStatus voxpress_verify(VoxpressHandle handle, const uint8_t* VOXPRESS_NONNULL voice,
                                               size_t voice_bytes, VoxpressSamples samples,
                                               VoxpressDecision* VOXPRESS_NONNULL decision,
                                               VoxpressError* VOXPRESS_NONNULL error);

/* The runner of device_tests/harness inside an app: the same options, `--model X.pte --features F --out DIR`, without a
 * program's name in front; the engine is the one for the model's suffix. Returns the runner's exit code, with the
 * reason in `error` if it is not 0. One at a time. */
VOXPRESS_PUBLIC int32_t voxpress_benchmark(const char* VOXPRESS_NONNULL const* VOXPRESS_NONNULL arguments, size_t count,
                                           VoxpressError* VOXPRESS_NONNULL error);

#ifdef __cplusplus
}
#endif

#endif
