// Enrolled voices: how they are averaged, stored and scored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace voxpress::core {

// What an embedding fits to: bundles of another major version, name or artifact have another space.
struct VoiceSpace {
  std::string name;   // of the bundle, at most 64 bytes
  std::string label;  // of the artifact, at most 40 bytes
  int64_t major = 0;
  int64_t embedding_dim = 0;
};

struct Voice {
  VoiceSpace space;
  std::vector<float> embedding;  // of length 1
};

// embedding / |embedding| in double. Throws InputError naming `what` for one that is not finite or zero.
std::vector<double> unit(std::vector<double> embedding, const std::string& what);
std::vector<double> unit(const std::vector<float>& embedding, const std::string& what);

// The mean of directions: unit(sum_i unit(e_i)), at least one. Throws InputError if they cancel out.
std::vector<float> enrolled(const std::vector<std::vector<float>>& embeddings);

// Cosine of two embeddings, in double, within [-1, 1].
double cosine(const std::vector<float>& a, const std::vector<float>& b);

// A voice as bytes: magic "VXVO", version 1, embedding_dim, major (u32 little-endian each), name [64], label [40],
// zeros behind them, embedding_dim float32 little-endian.
size_t voice_bytes(int64_t embedding_dim);
void write_voice(const Voice& voice, uint8_t* bytes);
// Throws InputError for bytes that write_voice did not write.
Voice read_voice(const uint8_t* bytes, size_t size);

// Throws InputError, saying both sides, if a voice was enrolled in another space.
void check_space(const VoiceSpace& voice, const VoiceSpace& wanted);

}  // namespace voxpress::core
