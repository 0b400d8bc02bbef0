#include "files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "errors.h"

namespace voxpress::harness {
namespace {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

void write_all(int descriptor, const std::string& bytes, const std::string& path) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = ::write(descriptor, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw InputError(path, "a place to write to", std::strerror(errno));
    done += static_cast<size_t>(written);
  }
  if (::fsync(descriptor) != 0) throw InputError(path, "a place to write to", std::strerror(errno));
}

}  // namespace

size_t file_bytes(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) throw InputError(path, "a file", std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw InputError(path, "a file", "something that is not a regular file");
  return static_cast<size_t>(status.st_size);
}

MappedFile::MappedFile(const std::string& path) : size_(file_bytes(path)) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw InputError(path, "a readable file", std::strerror(errno));
  if (size_ == 0) return;
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (mapping == MAP_FAILED) throw InputError(path, "a file that can be mapped", std::strerror(errno));
  data_ = static_cast<const uint8_t*>(mapping);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void write_atomically(const std::string& path, const std::string& bytes) {
  std::string temporary = path + ".XXXXXX";
  const Descriptor file(::mkstemp(temporary.data()));
  if (file.get() < 0) throw InputError(path, "a place to write to", std::strerror(errno));
  try {
    write_all(file.get(), bytes, path);
    ::fchmod(file.get(), 0644);
    if (std::rename(temporary.c_str(), path.c_str()) != 0) {
      throw InputError(path, "a place to write to", std::strerror(errno));
    }
  } catch (const InputError&) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace voxpress::harness
