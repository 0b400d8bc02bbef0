// voxpress_pte_runner and voxpress_tflite_runner: a model file over a file of features, by VOXPRESS_ENGINE.
#include <cstdio>
#include <string>
#include <vector>

#include "command_line.h"
#include "engine.h"

int main(int argc, char** argv) {
  const voxpress::harness::CommandResult result =
      voxpress::harness::run_command(*VOXPRESS_ENGINE(), std::vector<std::string>(argv + 1, argv + argc));
  if (!result.text.empty()) std::fprintf(stderr, "%s\n", result.text.c_str());
  return result.exit_code;
}
