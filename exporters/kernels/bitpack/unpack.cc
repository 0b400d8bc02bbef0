#include "bitpack/unpack.h"

#include <cstring>

#include "base/checked.h"

namespace voxpress {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "codes and floats are read as they lie in the file");

// Eight codes from the low bits on, to a byte each: the upper half of what a word, then of what each half and quarter
// of it holds moves to where that half begins.
template <int kBits>
uint64_t spread(uint64_t codes) {
  constexpr uint64_t kFour = (uint64_t{1} << (4 * kBits)) - 1;
  constexpr uint64_t kTwo = ((uint64_t{1} << (2 * kBits)) - 1) * 0x0000000100000001;
  constexpr uint64_t kOne = ((uint64_t{1} << kBits) - 1) * 0x0001000100010001;
  codes = (codes & kFour) | (codes & kFour << (4 * kBits)) << (32 - 4 * kBits);
  codes = (codes & kTwo) | (codes & kTwo << (2 * kBits)) << (16 - 2 * kBits);
  return (codes & kOne) | (codes & kOne << kBits) << (8 - kBits);
}

// Eight codes fill exactly kBits bytes, so all groups of eight in one call begin at the same bit of their first byte.
// shift + 8 * kBits never exceeds 64: shift is 0 for 8 bits and at most 7 for the others.
template <int kBits>
void unpack(const uint8_t* packed, size_t packed_bytes, int64_t first, int64_t count, uint8_t* out) {
  constexpr uint64_t kMask = (1u << kBits) - 1;
  const uint64_t first_bit = static_cast<uint64_t>(first) * kBits;
  size_t byte = static_cast<size_t>(first_bit >> 3);
  const int shift = static_cast<int>(first_bit & 7);
  int64_t done = 0;
  for (; count - done >= 8 && packed_bytes - byte >= 8; done += 8, byte += kBits) {
    uint64_t window;
    std::memcpy(&window, packed + byte, sizeof(window));
    const uint64_t eight = spread<kBits>(window >> shift);
    std::memcpy(out + done, &eight, sizeof(eight));
  }
  for (; done < count; ++done) {
    const uint64_t bit = static_cast<uint64_t>(first + done) * kBits;
    const size_t at = static_cast<size_t>(bit >> 3);
    const int low = static_cast<int>(bit & 7);
    uint32_t window = packed[at];
    if (low + kBits > 8) window |= static_cast<uint32_t>(packed[at + 1]) << 8;
    out[done] = static_cast<uint8_t>(window >> low & kMask);
  }
}

using Unpack = void (*)(const uint8_t*, size_t, int64_t, int64_t, uint8_t*);
constexpr Unpack kUnpack[] = {unpack<1>, unpack<2>, unpack<3>, unpack<4>, unpack<5>, unpack<6>, unpack<7>, unpack<8>};

}  // namespace

Status unpack_codes(const void* packed, size_t packed_bytes, int32_t bits, int64_t first, int64_t count, uint8_t* out) {
  if (bits < 1 || bits > 8) return Status::kBadBits;
  if (first < 0 || count < 0 || first > kMaxElements || count > kMaxElements) return Status::kBadShape;
  if (count == 0) return Status::kOk;
  if (packed == nullptr || out == nullptr) return Status::kNullPointer;
  const uint64_t end_bit = static_cast<uint64_t>(first + count) * static_cast<uint64_t>(bits);
  if ((end_bit + 7) / 8 > packed_bytes) return Status::kBadBufferSize;
  kUnpack[bits - 1](static_cast<const uint8_t*>(packed), packed_bytes, first, count, out);
  return Status::kOk;
}

}  // namespace voxpress
