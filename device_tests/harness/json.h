// As much JSON as the harness needs: a strict reader for file headers, and text for the report.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace voxpress::harness {

// A JSON value. A number with a fraction or an exponent is another kind than an integer, so that a count is never
// rounded.
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

// Parses a whole text. Throws JsonError for anything that is not strict JSON, and for keys used twice, numbers beyond
// 64 bits, broken UTF-8, and nesting deeper than 16.
Json parse_json(std::string_view text);

// The text as a JSON string, quotes included.
std::string quote_json(std::string_view text);

}  // namespace voxpress::harness
