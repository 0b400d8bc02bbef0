/* What a Swift importer does with voxpress.h, in what C and C++ share: opens a bundle, enrols from three utterances,
 * verifies the others, closes during use and twice. Files of samples are float32, little-endian.
 *
 *   session BUNDLE KEYS SIGNATURE SAMPLES...     SIGNATURE: file of the 64 bytes that the verifier takes for valid
 *
 * One line a trial: score, llr, accepted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "voxpress.h"

#define MOST_UTTERANCES 64

typedef struct Expected {
  uint8_t signature[VOXPRESS_ED25519_SIGNATURE_BYTES];
  int calls;
} Expected;

static void* read_file(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  char* data;
  long size;
  if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) exit(2);
  rewind(file);
  data = (char*)malloc((size_t)size + 1);
  if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) exit(2);
  data[size] = '\0';
  fclose(file);
  *bytes = (size_t)size;
  return data;
}

/* Stands for the platform's curve: this program has none. */
static int32_t verify(void* context, const uint8_t* public_key, const uint8_t* message, size_t message_bytes,
                      const uint8_t* signature) {
  Expected* expected = (Expected*)context;
  (void)public_key;
  (void)message;
  ++expected->calls;
  return message_bytes > 0 && memcmp(signature, expected->signature, sizeof expected->signature) == 0;
}

static void require(VoxpressStatus status, VoxpressStatus wanted, const VoxpressError* error) {
  if (status == wanted) return;
  fprintf(stderr, "status %d where %d is wanted: %s\n", (int)status, (int)wanted, error->text);
  exit(1);
}

int main(int argc, char** argv) {
  VoxpressOptions options;
  VoxpressError error;
  VoxpressInfo info;
  VoxpressDecision decision;
  Expected expected = {{0}, 0};
  VoxpressHandle handle;
  size_t bytes;
  int i, count = argc - 4;
  void* signature;
  /* Static: wherever this ends, what it read is no leak, and the library's are all that a sanitizer finds. */
  static VoxpressSamples utterances[MOST_UTTERANCES];
  static uint8_t* voice;
  static char* keys;
  if (count < 4 || count > MOST_UTTERANCES) return 2;
  memset(&options, 0, sizeof options);
  keys = (char*)read_file(argv[2], &bytes);
  signature = read_file(argv[3], &bytes);
  if (bytes != sizeof expected.signature) return 2;
  memcpy(expected.signature, signature, bytes);
  free(signature);
  for (i = 0; i < count; ++i) {
    utterances[i].data = (const float*)read_file(argv[4 + i], &bytes);
    utterances[i].count = bytes / sizeof(float);
  }

  options.bundle = argv[1];
  options.public_keys = keys;
  options.verify_signature = verify;
  options.verify_context = &expected;
  options.format = getenv("VOXPRESS_FORMAT");
  options.runtime_library = getenv("VOXPRESS_RUNTIME");
  options.delegate_library = getenv("VOXPRESS_DELEGATE");
  handle = voxpress_open(&options, &error);
  if (handle == 0) {
    fprintf(stderr, "%s\n", error.text);
    return 2;
  }
  if (expected.calls != 1) return 1;
  require(voxpress_info(handle, &info, &error), VOXPRESS_OK, &error);
  voice = (uint8_t*)malloc(info.voice_bytes);
  if (voice == NULL) return 1;
  require(voxpress_enroll(handle, utterances, 3, voice, &error), VOXPRESS_OK, &error);
  for (i = 3; i < count; ++i) {
    require(voxpress_verify(handle, voice, info.voice_bytes, utterances[i], &decision, &error), VOXPRESS_OK, &error);
    printf("%.17g %.17g %d\n", decision.score, decision.llr, (int)decision.accepted);
  }
  utterances[0].count = 1;
  require(voxpress_enroll(handle, utterances, 1, voice, &error), VOXPRESS_BAD_INPUT, &error);
  voxpress_close(handle);
  voxpress_close(handle);
  require(voxpress_info(handle, &info, &error), VOXPRESS_CLOSED, &error);

  expected.signature[0] ^= 1;
  if (voxpress_open(&options, &error) != 0) return 1;
  fprintf(stderr, "%s\n", error.text);
  return 0;
}
