// What the user can mend; the message is one line that names the file.
#pragma once

#include <stdexcept>
#include <string>

namespace voxpress::harness {

class InputError : public std::runtime_error {
 public:
  InputError(const std::string& what, const std::string& expected, const std::string& found)
      : std::runtime_error(what + ": expected " + expected + ", found " + found) {}
};

}  // namespace voxpress::harness
