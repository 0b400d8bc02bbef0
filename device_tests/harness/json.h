// As much JSON as the harness and the apps' core need: a strict reader for file headers and bundle manifests, and text
// for the report.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace voxpress::harness {

// A JSON value. Numbers without fraction and exponent are integers, so that offsets and counts are exact; all others are
// real.
struct Json {
  enum class Kind { kNull, kBool, kInteger, kReal, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  int64_t integer = 0;
  double real = 0;
  std::string string;
  std::vector<Json> array;
  std::vector<std::pair<std::string, Json>> object;  // in the order of the file

  // The member of an object, or null if there is none or this is no object.
  const Json* find(std::string_view key) const;
};

// Where and why a text is not JSON that we take.
class JsonError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Parses a whole text. Throws JsonError for anything that is not strict JSON, and for keys used twice, integers beyond
// 64 bits, real numbers beyond a double, broken UTF-8, and nesting deeper than 16.
Json parse_json(std::string_view text);

// The text as a JSON string, quotes included.
std::string quote_json(std::string_view text);

}  // namespace voxpress::harness
