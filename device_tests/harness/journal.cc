#include "journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "errors.h"
#include "files.h"

namespace voxpress::harness {
namespace {

constexpr char kMagic[] = "voxpress embeddings 1\n";
constexpr size_t kCountBytes = 4;  // of a name, of an embedding, of a check sum

// FNV-1a over a record: it need only tell a whole record from a torn one.
uint32_t check_sum(const char* bytes, size_t size) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<uint8_t>(bytes[i])) * 16777619u;
  return hash;
}

std::string four_bytes(uint32_t value) {
  std::string text(kCountBytes, '\0');
  std::memcpy(text.data(), &value, kCountBytes);
  return text;
}

uint32_t count_at(const char* bytes) {
  uint32_t value = 0;
  std::memcpy(&value, bytes, kCountBytes);
  return value;
}

// Reads records from `begin` on; returns where the last whole one ends.
size_t read_records(const char* text, size_t begin, size_t size, std::map<std::string, std::vector<float>>* records) {
  while (size - begin >= 2 * kCountBytes) {
    const uint64_t name_bytes = count_at(text + begin), values = count_at(text + begin + kCountBytes);
    const uint64_t body = 2 * kCountBytes + name_bytes + values * sizeof(float);
    if (body + kCountBytes > size - begin) break;
    if (count_at(text + begin + body) != check_sum(text + begin, body)) break;
    const char* name = text + begin + 2 * kCountBytes;
    std::vector<float> embedding(values);
    if (values > 0) std::memcpy(embedding.data(), name + name_bytes, values * sizeof(float));
    (*records)[std::string(name, name_bytes)] = std::move(embedding);
    begin += body + kCountBytes;
  }
  return begin;
}

}  // namespace

EmbeddingJournal::EmbeddingJournal(std::string path, const std::string& key) : path_(std::move(path)) {
  const std::string head = kMagic + key + "\n";
  size_t good = 0;
  if (::access(path_.c_str(), F_OK) == 0) {
    const MappedFile old(path_);
    const auto* text = reinterpret_cast<const char*>(old.data());
    if (old.size() >= head.size() && std::memcmp(text, head.data(), head.size()) == 0) {
      good = read_records(text, head.size(), old.size(), &embeddings_);
    }
  }
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0 || ::ftruncate(descriptor_, static_cast<off_t>(good)) != 0 ||
      ::lseek(descriptor_, 0, SEEK_END) < 0) {
    throw InputError(path_, "a place to write to", std::strerror(errno));
  }
  if (good == 0) write(head);
}

EmbeddingJournal::~EmbeddingJournal() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EmbeddingJournal::add(const std::string& utterance, const std::vector<float>& embedding) {
  std::string record = four_bytes(static_cast<uint32_t>(utterance.size())) +
                       four_bytes(static_cast<uint32_t>(embedding.size())) + utterance;
  record.append(reinterpret_cast<const char*>(embedding.data()), embedding.size() * sizeof(float));
  write(record + four_bytes(check_sum(record.data(), record.size())));
  embeddings_[utterance] = embedding;
}

void EmbeddingJournal::write(const std::string& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw InputError(path_, "a place to write to", std::strerror(errno));
    done += static_cast<size_t>(written);
  }
}

}  // namespace voxpress::harness
