#include "command_line.h"

#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "driver.h"
#include "errors.h"

namespace voxpress::harness {
namespace {

constexpr int kInputExitCode = 2;
constexpr char kUsage[] =
    "usage: voxpress_pte_runner|voxpress_tflite_runner --model X --features features.safetensors --out DIR "
    "[--warmup 2] [--runs 10] [--speed-frames 200] [--threads 1] [--low-memory] [--skip-accuracy] [--sha256 HEX] "
    "[--runtime-library PATH] [--delegate-library PATH] [--runtime-version TEXT]; or --serve without --out, --warmup, "
    "--runs; or --machine alone";

int64_t parse_count(std::string_view option, std::string_view text, int64_t smallest, int64_t largest) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < smallest || value > largest) {
    throw InputError(std::string(option), std::to_string(smallest) + " to " + std::to_string(largest),
                     std::string(text));
  }
  return value;
}

struct Words {
  RunOptions options;
  bool serve = false, machine = false;
};

Words parse_words(const std::vector<std::string>& arguments) {
  Words words;
  RunOptions& options = words.options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view option = arguments[i];
    if (option == "--skip-accuracy") {
      options.skip_accuracy = true;
      continue;
    }
    if (option == "--serve") {
      words.serve = true;
      continue;
    }
    if (option == "--machine") {
      words.machine = true;
      continue;
    }
    if (option == "--low-memory") {
      options.low_memory = true;
      continue;
    }
    if (i + 1 == arguments.size())
      throw InputError(std::string(option), "a known option and its value; " + std::string(kUsage), "no value");
    const std::string_view value = arguments[++i];
    if (option == "--model") {
      options.model = value;
    } else if (option == "--features") {
      options.features = value;
    } else if (option == "--out") {
      options.out = value;
    } else if (option == "--sha256") {
      options.model_sha256 = value;
    } else if (option == "--runtime-library") {
      options.runtime_library = value;
    } else if (option == "--delegate-library") {
      options.delegate_library = value;
    } else if (option == "--runtime-version") {
      options.runtime_version = value;
    } else if (option == "--warmup") {
      options.warmup = parse_count(option, value, 0, 10'000);
    } else if (option == "--runs") {
      options.runs = parse_count(option, value, 1, 1'000'000);
    } else if (option == "--speed-frames") {
      options.speed_frames = parse_count(option, value, 1, 1'000'000);
    } else if (option == "--threads") {
      options.threads = static_cast<int32_t>(parse_count(option, value, 1, 256));
    } else {
      throw InputError(std::string(option), "a known option; " + std::string(kUsage), "an unknown one");
    }
  }
  if (words.machine) return words;
  if (options.model.empty() || options.features.empty() || options.out.empty() != words.serve) {
    throw InputError(
        "options", kUsage,
        words.serve ? "--serve with --out, or no --model or --features" : "no --model, --features or --out");
  }
  return words;
}

}  // namespace

CommandResult run_command(const VoxpressEngineApi& api, const std::vector<std::string>& arguments) {
  try {
    const Words words = parse_words(arguments);
    if (words.machine) {
      std::printf("%s\n", describe_machine().c_str());
      return {0, ""};
    }
    const auto run = words.serve ? serve_engine : run_engine;
    run(api, words.options);
    return {0, ""};
  } catch (const InputError& error) {
    return {kInputExitCode, error.what()};
  } catch (const std::exception& error) {
    return {1, std::string("voxpress runner: ") + error.what()};
  }
}

}  // namespace voxpress::harness
