#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <locale>
#include <sstream>

namespace voxpress::harness {
namespace {

constexpr int kMaxDepth = 16;

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json whole() {
    Json value = read(0);
    skip_space();
    if (position_ != text_.size()) fail("more text after the value");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* why) const {
    throw JsonError(std::string(why) + " at byte " + std::to_string(position_));
  }

  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  bool take(char expected) {
    if (peek() != expected || position_ >= text_.size()) return false;
    ++position_;
    return true;
  }

  void skip_space() {
    while (position_ < text_.size() && std::string_view(" \t\r\n").find(text_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }

  Json read(int depth) {
    if (depth > kMaxDepth) fail("nesting too deep");
    skip_space();
    Json value;
    switch (peek()) {
      case '{':
        read_object(&value, depth);
        break;
      case '[':
        read_array(&value, depth);
        break;
      case '"':
        value.kind = Json::Kind::kString;
        value.string = read_string();
        break;
      case 't':
      case 'f':
        value.kind = Json::Kind::kBool;
        value.boolean = peek() == 't';
        read_word(value.boolean ? "true" : "false");
        break;
      case 'n':
        read_word("null");
        break;
      default:
        read_number(&value);
    }
    return value;
  }

  void read_word(std::string_view word) {
    if (text_.substr(position_, word.size()) != word) fail("an unknown word");
    position_ += word.size();
  }

  void read_number(Json* value) {
    const size_t digits = position_ + (peek() == '-' ? 1 : 0);
    if (digits + 1 < text_.size() && text_[digits] == '0' && text_[digits + 1] >= '0' && text_[digits + 1] <= '9') {
      fail("a number with a leading zero");
    }
    const size_t begin = position_;
    const auto [end, error] = std::from_chars(text_.data() + position_, text_.data() + text_.size(), value->integer);
    if (error != std::errc()) fail("no value, or a number beyond 64 bits");
    position_ = static_cast<size_t>(end - text_.data());
    value->kind = Json::Kind::kInteger;
    if (peek() != '.' && peek() != 'e' && peek() != 'E') return;
    if (take('.')) skip_digits();
    if (take('e') || take('E')) {
      if (!take('-')) take('+');
      skip_digits();
    }
    value->kind = Json::Kind::kReal;
    // Not from_chars, which knows no reals in the libraries of older phones; not strtod, which reads a comma where an
    // app has set such a locale.
    std::istringstream real(std::string(text_.substr(begin, position_ - begin)));
    real.imbue(std::locale::classic());
    real >> value->real;
    if (real.fail() || !std::isfinite(value->real)) fail("a number beyond 64 bits");
  }

  void skip_digits() {
    const size_t begin = position_;
    while (peek() >= '0' && peek() <= '9') ++position_;
    if (position_ == begin) fail("a number without digits where some belong");
  }

  void read_array(Json* value, int depth) {
    value->kind = Json::Kind::kArray;
    take('[');
    skip_space();
    if (take(']')) return;
    do {
      value->array.push_back(read(depth + 1));
      skip_space();
    } while (take(','));
    if (!take(']')) fail("an array that is not closed");
  }

  void read_object(Json* value, int depth) {
    value->kind = Json::Kind::kObject;
    take('{');
    skip_space();
    if (take('}')) return;
    do {
      skip_space();
      if (peek() != '"') fail("no key");
      std::string key = read_string();
      skip_space();
      if (!take(':')) fail("no colon after a key");
      value->object.emplace_back(std::move(key), read(depth + 1));
      skip_space();
    } while (take(','));
    if (!take('}')) fail("an object that is not closed");
    refuse_repeated_keys(*value);
  }

  void refuse_repeated_keys(const Json& object) const {
    std::vector<std::string_view> keys;
    keys.reserve(object.object.size());
    for (const auto& [key, unused] : object.object) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) fail("an object with a key used twice");
  }

  std::string read_string() {
    take('"');
    std::string value;
    while (true) {
      if (position_ >= text_.size()) fail("a string that is not closed");
      const auto byte = static_cast<unsigned char>(text_[position_]);
      if (byte == '"') break;
      if (byte < 0x20) fail("a control character in a string");
      if (byte == '\\') {
        ++position_;
        read_escape(&value);
      } else if (byte < 0x80) {
        value += text_[position_++];
      } else {
        read_multibyte(&value);
      }
    }
    ++position_;
    return value;
  }

  // One UTF-8 sequence of two to four bytes, as RFC 3629 allows it.
  void read_multibyte(std::string* value) {
    const auto lead = static_cast<unsigned char>(text_[position_]);
    const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                       : lead >= 0xE0 && lead <= 0xEF ? 3
                       : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                      : 0;
    if (length == 0 || text_.size() - position_ < static_cast<size_t>(length)) fail("broken UTF-8");
    uint32_t point = lead & (0xFF >> (length + 1));
    for (int i = 1; i < length; ++i) {
      const auto next = static_cast<unsigned char>(text_[position_ + static_cast<size_t>(i)]);
      if ((next & 0xC0) != 0x80) fail("broken UTF-8");
      point = point << 6 | (next & 0x3F);
    }
    const uint32_t smallest = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    if (point < smallest || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) fail("broken UTF-8");
    value->append(text_.substr(position_, static_cast<size_t>(length)));
    position_ += static_cast<size_t>(length);
  }

  void read_escape(std::string* value) {
    constexpr std::string_view kLetters = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const char letter = peek();
    if (letter == 'u') {
      ++position_;
      append_utf8(read_code_point(), value);
      return;
    }
    const size_t index = letter == '\0' ? std::string_view::npos : kLetters.find(letter);
    if (index == std::string_view::npos) fail("an unknown escape");
    *value += kMeanings[index];
    ++position_;
  }

  uint32_t read_code_point() {
    const uint32_t first = read_hex();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !take('\\') || !take('u')) fail("half a surrogate pair");
    const uint32_t second = read_hex();
    if (second < 0xDC00 || second > 0xDFFF) fail("half a surrogate pair");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  uint32_t read_hex() {
    uint32_t value = 0;
    const std::string_view digits = text_.substr(position_, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) fail("a broken \\u escape");
    position_ += 4;
    return value;
  }

  static void append_utf8(uint32_t point, std::string* value) {
    const auto tail = [point](int shift) { return static_cast<char>(0x80 | (point >> shift & 0x3F)); };
    if (point < 0x80) {
      *value += static_cast<char>(point);
    } else if (point < 0x800) {
      *value += {static_cast<char>(0xC0 | point >> 6), tail(0)};
    } else if (point < 0x10000) {
      *value += {static_cast<char>(0xE0 | point >> 12), tail(6), tail(0)};
    } else {
      *value += {static_cast<char>(0xF0 | point >> 18), tail(12), tail(6), tail(0)};
    }
  }

  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view key) const {
  for (const auto& [name, value] : object) {
    if (name == key) return &value;
  }
  return nullptr;
}

Json parse_json(std::string_view text) { return Reader(text).whole(); }

std::string quote_json(std::string_view text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') {
      quoted += {'\\', letter};
    } else if (static_cast<unsigned char>(letter) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(letter));
      quoted += escape;
    } else {
      quoted += letter;
    }
  }
  return quoted + "\"";
}

}  // namespace voxpress::harness
