#include "voice.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "errors.h"

namespace voxpress::core {
namespace {

using harness::InputError;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "voices are stored as they lie in memory");

constexpr uint32_t kMagic = 0x4f565856;  // "VXVO"
constexpr uint32_t kVoiceVersion = 1;

struct Header {
  uint32_t magic, version, embedding_dim, major;
  char name[64], label[40];
};
static_assert(sizeof(Header) == 120);

template <size_t kSize>
std::string text_in(const char (&text)[kSize]) {
  return std::string(text, std::find(text, text + kSize, '\0'));
}

std::string named(const VoiceSpace& space) {
  return space.name + " " + std::to_string(space.major) + ".x, " + space.label + ", of " +
         std::to_string(space.embedding_dim);
}

}  // namespace

std::vector<double> unit(std::vector<double> values, const std::string& what) {
  double largest = 0;
  for (const double value : values) largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : INFINITY;
  if (!(largest > 0 && std::isfinite(largest))) {
    throw InputError(what, "a finite embedding that is not zero", largest == 0 ? "all zero" : "NaN or infinite");
  }
  // Scaled by its largest value first, so that squaring neither overflows nor underflows.
  double squares = 0;
  for (double& value : values) {
    value /= largest;
    squares += value * value;
  }
  const double length = std::sqrt(squares);
  for (double& value : values) value /= length;
  return values;
}

std::vector<double> unit(const std::vector<float>& embedding, const std::string& what) {
  return unit(std::vector<double>(embedding.begin(), embedding.end()), what);
}

std::vector<float> enrolled(const std::vector<std::vector<float>>& embeddings) {
  std::vector<double> sum(embeddings.front().size());
  for (size_t i = 0; i < embeddings.size(); ++i) {
    const std::vector<double> direction = unit(embeddings[i], "utterance " + std::to_string(i + 1));
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += direction[j];
  }
  const std::vector<double> mean = unit(std::move(sum), "enrolment");
  return std::vector<float>(mean.begin(), mean.end());
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  const std::vector<double> one = unit(a, "voice"), other = unit(b, "utterance");
  double sum = 0;
  for (size_t i = 0; i < one.size(); ++i) sum += one[i] * other[i];
  return std::clamp(sum, -1.0, 1.0);
}

size_t voice_bytes(int64_t embedding_dim) {
  return sizeof(Header) + static_cast<size_t>(embedding_dim) * sizeof(float);
}

void write_voice(const Voice& voice, uint8_t* bytes) {
  Header header = {};
  header.magic = kMagic;
  header.version = kVoiceVersion;
  header.embedding_dim = static_cast<uint32_t>(voice.space.embedding_dim);
  header.major = static_cast<uint32_t>(voice.space.major);
  std::memcpy(header.name, voice.space.name.data(), std::min(voice.space.name.size(), sizeof header.name));
  std::memcpy(header.label, voice.space.label.data(), std::min(voice.space.label.size(), sizeof header.label));
  std::memcpy(bytes, &header, sizeof header);
  std::memcpy(bytes + sizeof header, voice.embedding.data(), voice.embedding.size() * sizeof(float));
}

Voice read_voice(const uint8_t* bytes, size_t size) {
  Header header = {};
  const auto refuse = [](const std::string& found) { throw InputError("voice", "an enrolled voice", found); };
  if (size < sizeof header) refuse(std::to_string(size) + " bytes");
  std::memcpy(&header, bytes, sizeof header);
  if (header.magic != kMagic) refuse("something else");
  if (header.version != kVoiceVersion) refuse("one of version " + std::to_string(header.version));
  if (header.embedding_dim == 0) refuse("one of no numbers");
  if (size != voice_bytes(header.embedding_dim)) refuse(std::to_string(size) + " bytes");
  Voice voice;
  voice.space = {text_in(header.name), text_in(header.label), header.major, header.embedding_dim};
  voice.embedding.resize(header.embedding_dim);
  std::memcpy(voice.embedding.data(), bytes + sizeof header, size - sizeof header);
  return voice;
}

void check_space(const VoiceSpace& voice, const VoiceSpace& wanted) {
  if (voice.name != wanted.name || voice.label != wanted.label || voice.major != wanted.major ||
      voice.embedding_dim != wanted.embedding_dim) {
    // Names come from storage: only printable signs of them reach the message.
    std::string found = named(voice);
    std::replace_if(found.begin(), found.end(), [](char c) { return c < 0x20 || c > 0x7E; }, '?');
    throw InputError("voice", "one enrolled with " + named(wanted), "one of " + found);
  }
}

}  // namespace voxpress::core
