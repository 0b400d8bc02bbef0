#include "process_memory.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace voxpress::harness {

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0, resident_pages = 0;
  return statm >> total_pages >> resident_pages ? resident_pages * ::sysconf(_SC_PAGESIZE) : 0;
}

int64_t peak_resident_bytes() {
  constexpr int64_t kKibibyte = 1024;
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kibibytes = 0;
    if (word == "VmHWM:" && status >> kibibytes) return kibibytes * kKibibyte;
  }
  return 0;
}

}  // namespace voxpress::harness
