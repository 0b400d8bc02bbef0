// 128 bits for weights to be known again by. Of this process alone: values differ between machines and versions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace voxpress {

// Where lanes of state take in bytes: each step is a bijection of its lane for given bytes, and of the bytes for a
// given lane, so that one changed word always changes the hash.
struct HashState {
  static constexpr size_t kBytes = 128;
  alignas(64) unsigned char lanes[kBytes];
};

// Takes in `blocks` times HashState::kBytes.
using HashBlocks = void (*)(HashState* state, const unsigned char* data, size_t blocks);

void hash_blocks_portable(HashState* state, const unsigned char* data, size_t blocks);
// With a round of AES for 16 bytes; null where this build or the processor has none.
HashBlocks hash_blocks_aes();
// The fastest here.
HashBlocks hash_blocks();

class Hash {
 public:
  explicit Hash(HashBlocks blocks = hash_blocks());

  // Bytes in pieces hash differently from the same bytes as one.
  void add(const void* data, size_t bytes);

  struct Value {
    uint64_t low, high;
  };
  Value value() const;

 private:
  HashBlocks blocks_;
  HashState state_;
};

}  // namespace voxpress
