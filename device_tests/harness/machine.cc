#include "machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace voxpress::harness {
namespace {

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return trimmed(line);
}

int64_t number_in(const std::string& path, int64_t missing) {
  std::ifstream file(path);
  int64_t value = missing;
  return file >> value ? value : missing;
}

#if defined(__APPLE__)

std::string control_text(const char* name) {
  char text[256] = {};
  size_t size = sizeof text - 1;
  return ::sysctlbyname(name, text, &size, nullptr, 0) == 0 ? trimmed(text) : "";
}

int64_t control_number(const char* name) {
  int64_t value = 0;
  size_t size = sizeof value;
  return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 ? value : 0;
}

#else

// The values of the first processor in /proc/cpuinfo.
std::map<std::string, std::string> processor() {
  std::ifstream file("/proc/cpuinfo");
  std::map<std::string, std::string> values;
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) {
      if (!values.empty()) break;
      continue;
    }
    values.emplace(trimmed(line.substr(0, colon)), trimmed(line.substr(colon + 1)));
  }
  return values;
}

std::string os_name() {
  std::ifstream file("/etc/os-release");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("PRETTY_NAME=", 0) != 0) continue;
    std::string name = line.substr(line.find('=') + 1);
    name.erase(std::remove(name.begin(), name.end(), '"'), name.end());
    return name;
  }
  return "";
}

#endif

#if defined(__aarch64__) && !defined(__APPLE__)

// Asked of the kernel, not of /proc/cpuinfo: an emulator shows its host's there.
std::vector<std::string> arm_features() {
  struct Feature {
    int bit;
    const char* name;
  };
  constexpr Feature kFirst[] = {{0, "fp"}, {1, "asimd"}, {9, "fphp"}, {10, "asimdhp"}, {20, "asimddp"}, {22, "sve"}};
  constexpr Feature kSecond[] = {{1, "sve2"}, {13, "i8mm"}, {14, "bf16"}};
  std::vector<std::string> names;
  for (const Feature& feature : kFirst) {
    if (::getauxval(AT_HWCAP) >> feature.bit & 1) names.emplace_back(feature.name);
  }
  for (const Feature& feature : kSecond) {
    if (::getauxval(AT_HWCAP2) >> feature.bit & 1) names.emplace_back(feature.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

#elif !defined(__APPLE__)

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  std::sort(found.begin(), found.end());
  return found;
}

#endif

}  // namespace

Machine read_machine() {
  Machine machine;
  struct utsname name = {};
  if (::uname(&name) == 0) {
    machine.os = name.sysname;
    machine.kernel = name.release;
    machine.architecture = name.machine;
  }
  machine.cores = ::sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__APPLE__)
  machine.cpu_model = control_text("hw.machine");
  machine.memory_bytes = control_number("hw.memsize");
  machine.os = "Apple " + control_text("kern.osproductversion");
#else
  machine.memory_bytes = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  const std::string os = os_name();
  if (!os.empty()) machine.os = os;
  const std::map<std::string, std::string> values = processor();
  for (const char* key : {"model name", "Hardware", "CPU part"}) {
    const auto found = values.find(key);
    if (machine.cpu_model.empty() && found != values.end()) machine.cpu_model = found->second;
  }
#if defined(__aarch64__)
  machine.cpu_features = arm_features();
#else
  const auto flags = values.find("flags");
  if (flags != values.end()) machine.cpu_features = words(flags->second);
#endif
#endif
  if (machine.cpu_model.empty()) machine.cpu_model = machine.architecture;
  return machine;
}

MachineState read_machine_state() {
  constexpr int64_t kKilo = 1000;
  MachineState state;
  const long cores = ::sysconf(_SC_NPROCESSORS_CONF);
  for (long core = 0; core < cores; ++core) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(core) + "/cpufreq/";
    const int64_t now = number_in(folder + "scaling_cur_freq", 0), most = number_in(folder + "cpuinfo_max_freq", 0);
    if (now > 0) state.clock_hz.push_back(now * kKilo);
    if (most > 0) state.max_clock_hz.push_back(most * kKilo);
  }
  state.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  constexpr int kMaxZones = 128;
  for (int zone = 0; zone < kMaxZones; ++zone) {
    const std::string folder = "/sys/class/thermal/thermal_zone" + std::to_string(zone) + "/";
    const std::string type = first_line(folder + "type");
    if (type.empty()) break;
    constexpr int64_t kMissing = INT64_MIN;
    const int64_t value = number_in(folder + "temp", kMissing);
    if (value != kMissing) state.temperature_mc[std::to_string(zone) + " " + type] = value;
  }
  double load = 0;
  std::ifstream average("/proc/loadavg");
  if (average >> load) state.load_milli = static_cast<int64_t>(load * kKilo + 0.5);
  return state;
}

}  // namespace voxpress::harness
