// The machine that a run is made on, as far as it lets itself be read. What it does not say is left out.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace voxpress::harness {

struct Machine {
  std::string os, kernel, architecture, cpu_model;
  std::vector<std::string> cpu_features;  // sorted
  int64_t cores = 0, memory_bytes = 0;
};

// What changes while a run goes on.
struct MachineState {
  std::string governor;                           // of the first core; "" where there is none to read
  std::vector<int64_t> clock_hz, max_clock_hz;    // of every core that says so
  std::map<std::string, int64_t> temperature_mc;  // thousandths of a degree Celsius by thermal zone
  int64_t load_milli = -1;                        // 1-minute load average times 1000; -1: not readable
};

Machine read_machine();
MachineState read_machine_state();

}  // namespace voxpress::harness
