#include "prepared/hash.h"

#include <cstring>

namespace voxpress {
namespace {

constexpr size_t kWords = HashState::kBytes / sizeof(uint64_t);

// Shifts let high bits, which a product only carries upwards, act on low ones. With one product alone the highest bit
// would act on two bits, always the same, which a change of the next word could undo.
uint64_t step(uint64_t state, uint64_t word) {
  state = (state ^ word) * 0x9e3779b97f4a7c15;
  state = (state ^ (state >> 32)) * 0xd6e8feb86659fd93;
  return state ^ (state >> 29);
}

}  // namespace

void hash_blocks_portable(HashState* state, const unsigned char* data, size_t blocks) {
  uint64_t lanes[kWords];
  std::memcpy(lanes, state->lanes, sizeof(lanes));
  for (size_t block = 0; block < blocks; ++block, data += HashState::kBytes) {
    for (size_t j = 0; j < kWords; ++j) {
      uint64_t word;
      std::memcpy(&word, data + j * sizeof(word), sizeof(word));
      lanes[j] = step(lanes[j], word);
    }
  }
  std::memcpy(state->lanes, lanes, sizeof(lanes));
}

HashBlocks hash_blocks() {
  static const HashBlocks fastest = hash_blocks_aes() != nullptr ? hash_blocks_aes() : hash_blocks_portable;
  return fastest;
}

Hash::Hash(HashBlocks blocks) : blocks_(blocks) {
  for (size_t j = 0; j < kWords; ++j) {
    const uint64_t first = step(j, 0x243f6a8885a308d3);
    std::memcpy(state_.lanes + j * sizeof(first), &first, sizeof(first));
  }
}

void Hash::add(const void* data, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  const size_t whole = bytes / HashState::kBytes;
  blocks_(&state_, at, whole);
  // The rest, with zeros behind it and how many bytes there were.
  unsigned char last[2 * HashState::kBytes] = {};
  const size_t rest = bytes - whole * HashState::kBytes;
  if (rest > 0) std::memcpy(last, at + whole * HashState::kBytes, rest);
  const uint64_t count = bytes;
  std::memcpy(last + HashState::kBytes, &count, sizeof(count));
  blocks_(&state_, last, 2);
}

Hash::Value Hash::value() const {
  Value found{0x243f6a8885a308d3, 0x13198a2e03707344};
  for (size_t j = 0; j < kWords; ++j) {
    uint64_t lane;
    std::memcpy(&lane, state_.lanes + j * sizeof(lane), sizeof(lane));
    found.low = step(found.low, lane);
    found.high = step(found.high ^ (found.high >> 31), lane ^ (lane << 21));
  }
  return found;
}

}  // namespace voxpress
