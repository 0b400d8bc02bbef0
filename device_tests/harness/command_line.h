// What the runners do with their arguments; apps that hold no programs call it with the same.
#pragma once

#include <string>
#include <vector>

#include "engine.h"

namespace voxpress::harness {

struct CommandResult {
  int exit_code;     // 0; 2 for what the user can mend; 1 for anything else that failed
  std::string text;  // why it failed, one line; "" if it did not
};

// Runs a model file over a file of features, or what else `arguments` ask for (without a program's name in front).
CommandResult run_command(const VoxpressEngineApi& api, const std::vector<std::string>& arguments);

}  // namespace voxpress::harness
