// Compiled with flags of its own, and empty where they are of no use.
#include "prepared/hash.h"

#if defined(__AES__)
#include <wmmintrin.h>
#elif defined(__ARM_FEATURE_AES) || defined(__ARM_FEATURE_CRYPTO)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#define VOXPRESS_ARM_AES
#endif

namespace voxpress {

#if defined(__AES__) || defined(VOXPRESS_ARM_AES)
namespace {

#if defined(__AES__)
using Lane = __m128i;
Lane load(const unsigned char* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); }
void store(unsigned char* at, Lane lane) { _mm_storeu_si128(reinterpret_cast<__m128i*>(at), lane); }
Lane round(Lane lane, Lane data) { return _mm_aesenc_si128(_mm_xor_si128(lane, data), _mm_setzero_si128()); }
bool processor_has_aes() { return __builtin_cpu_supports("aes"); }
#else
using Lane = uint8x16_t;
Lane load(const unsigned char* at) { return vld1q_u8(at); }
void store(unsigned char* at, Lane lane) { vst1q_u8(at, lane); }
Lane round(Lane lane, Lane data) { return vaesmcq_u8(vaeseq_u8(lane, data)); }
bool processor_has_aes() {
#if defined(__linux__)
  constexpr unsigned long kAes = 1UL << 3;  // HWCAP_AES
  return (getauxval(AT_HWCAP) & kAes) != 0;
#elif defined(__APPLE__)
  return true;  // in every 64-bit processor of theirs
#else
  return false;
#endif
}
#endif

void take_in(HashState* state, const unsigned char* data, size_t blocks) {
  constexpr int kLanes = HashState::kBytes / sizeof(Lane);
  Lane lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = load(state->lanes + j * sizeof(Lane));
  for (size_t block = 0; block < blocks; ++block, data += HashState::kBytes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = round(lanes[j], load(data + j * sizeof(Lane)));
  }
  for (int j = 0; j < kLanes; ++j) store(state->lanes + j * sizeof(Lane), lanes[j]);
}

}  // namespace

HashBlocks hash_blocks_aes() { return processor_has_aes() ? take_in : nullptr; }
#else
HashBlocks hash_blocks_aes() { return nullptr; }
#endif

}  // namespace voxpress
