#include "archive.h"

#include <cstdint>
#include <cstring>

#include "errors.h"

namespace voxpress::core {
namespace {

using harness::InputError;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "headers are read as they lie in memory");

// Headers of the zip format (PKWARE's APPNOTE 6.3.10, 4.3.7, 4.3.12 and 4.3.16) without the names behind them.
constexpr uint32_t kLocalMark = 0x04034b50, kEntryMark = 0x02014b50, kEndMark = 0x06054b50;
constexpr uint32_t kMoreThanFits = 0xffffffff;  // the real number is in a zip64 record, which bundles have none of
constexpr uint16_t kEncrypted = 1, kStored = 0;
constexpr size_t kMaxEntries = 4098;  // see exporters/bundle/manifest.py

#pragma pack(push, 1)
struct LocalHeader {
  uint32_t mark;
  uint16_t version, flags, method, time, date;
  uint32_t crc32, packed_bytes, bytes;
  uint16_t name_bytes, extra_bytes;
};
struct EntryHeader {
  uint32_t mark;
  uint16_t made_by, version, flags, method, time, date;
  uint32_t crc32, packed_bytes, bytes;
  uint16_t name_bytes, extra_bytes, comment_bytes, disk, attributes;
  uint32_t rights, local_at;
};
struct EndHeader {
  uint32_t mark;
  uint16_t disk, first_disk, entries_here, entries;
  uint32_t table_bytes, table_at;
  uint16_t comment_bytes;
};
#pragma pack(pop)
static_assert(sizeof(LocalHeader) == 30 && sizeof(EntryHeader) == 46 && sizeof(EndHeader) == 22);

// Reads of a mapping that stay inside it.
class Reader {
 public:
  Reader(std::string path, std::string_view bytes) : path_(std::move(path)), bytes_(bytes) {}

  [[noreturn]] void refuse(const std::string& found) const {
    throw InputError(path_, "a bundle's zip as voxpress release writes it", found);
  }

  std::string_view part(size_t at, size_t bytes) const {
    if (at > bytes_.size() || bytes_.size() - at < bytes) refuse("one that is cut or damaged");
    return bytes_.substr(at, bytes);
  }

  template <typename Header>
  Header header(size_t at, uint32_t mark) const {
    Header found;
    std::memcpy(&found, part(at, sizeof found).data(), sizeof found);
    if (found.mark != mark) refuse("one that is cut or damaged");
    return found;
  }

 private:
  std::string path_;
  std::string_view bytes_;
};

// An entry's bytes, which end at `limit` at the latest. Its header must lie at `expected`, right behind the entry
// before.
std::string_view content(const Reader& reader, const EntryHeader& entry, std::string_view name, size_t expected,
                         size_t limit) {
  if (entry.method != kStored || entry.packed_bytes != entry.bytes) reader.refuse("a compressed entry");
  if ((entry.flags & kEncrypted) != 0) reader.refuse("an encrypted entry");
  if (entry.bytes == kMoreThanFits || entry.local_at == kMoreThanFits) reader.refuse("an entry of 4 GiB or more");
  if (entry.local_at != expected) reader.refuse("one that is cut or damaged");
  const auto local = reader.header<LocalHeader>(expected, kLocalMark);
  const size_t name_at = expected + sizeof local;
  const size_t begin = name_at + local.name_bytes + local.extra_bytes;
  if (reader.part(name_at, local.name_bytes) != name || begin + entry.bytes > limit) {
    reader.refuse("one that is cut or damaged");
  }
  return reader.part(begin, entry.bytes);
}

}  // namespace

std::map<std::string, std::string_view> zip_entries(const std::string& path, std::string_view bytes) {
  const Reader reader(path, bytes);
  if (bytes.size() < sizeof(EndHeader)) reader.refuse("one that is cut or damaged");
  const size_t end_at = bytes.size() - sizeof(EndHeader);
  const auto end = reader.header<EndHeader>(end_at, kEndMark);
  if (end.entries > kMaxEntries || size_t{end.table_at} + end.table_bytes != end_at) {
    reader.refuse("one that is cut or damaged");
  }
  std::map<std::string, std::string_view> entries;
  size_t at = end.table_at, content_at = 0;
  for (uint16_t i = 0; i < end.entries; ++i) {
    const auto entry = reader.header<EntryHeader>(at, kEntryMark);
    const std::string name(reader.part(at + sizeof entry, entry.name_bytes));
    at += sizeof entry + entry.name_bytes + entry.extra_bytes + entry.comment_bytes;
    const std::string_view found = content(reader, entry, name, content_at, end.table_at);
    content_at = static_cast<size_t>(found.data() - bytes.data()) + found.size();
    if (!entries.emplace(name, found).second) reader.refuse("an entry twice");
  }
  if (at != end_at || content_at != end.table_at) reader.refuse("one that is cut or damaged");
  return entries;
}

Archive::Archive(const std::string& path)
    : path_(path),
      file_(path),
      entries_(zip_entries(path, {reinterpret_cast<const char*>(file_.data()), file_.size()})) {}

std::string_view Archive::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw InputError(path_ + ":" + name, "an entry of the bundle", "none");
  return found->second;
}

}  // namespace voxpress::core
