// Embeddings as they are made, one record after another, so that a run that was killed goes on where it was.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace voxpress::harness {

// A file of a key and of records with check sums. What a killed process left half-written at its end is cut off.
class EmbeddingJournal {
 public:
  // Takes over the records of `path` if it was written under the same key, else begins it anew. Throws InputError if it
  // cannot be written.
  EmbeddingJournal(std::string path, const std::string& key);
  ~EmbeddingJournal();
  EmbeddingJournal(const EmbeddingJournal&) = delete;
  EmbeddingJournal& operator=(const EmbeddingJournal&) = delete;

  // By utterance: what was there already and what was added.
  const std::map<std::string, std::vector<float>>& embeddings() const { return embeddings_; }

  // Throws InputError if the disk does not take it; the records before it stay.
  void add(const std::string& utterance, const std::vector<float>& embedding);

 private:
  void write(const std::string& bytes);

  std::string path_;
  int descriptor_ = -1;
  std::map<std::string, std::vector<float>> embeddings_;
};

}  // namespace voxpress::harness
