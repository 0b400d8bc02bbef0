#include "signature.h"

#include <algorithm>

#include "errors.h"
#include "json.h"
#include "sha256.h"

namespace voxpress::core {
namespace {

using harness::InputError;
using harness::Json;

constexpr std::string_view kPrefix = "voxpress bundle manifest, signature 1\n";
constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----";
constexpr std::string_view kEnd = "-----END PUBLIC KEY-----";
// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
constexpr uint8_t kKeyHead[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

int digit_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// RFC 4648, with padding, no line breaks. False for anything else, bits left over that are not 0 included.
bool decode_base64(std::string_view text, std::vector<uint8_t>* bytes) {
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.back() != '=' ? 0 : text[text.size() - 2] != '=' ? 1 : 2;
  const size_t digits = text.size() - padding;
  uint32_t bits = 0;
  int count = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int digit = digit_of(text[i]);
    if (digit < 0) return false;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes->push_back(static_cast<uint8_t>(bits >> count));
    bits &= (1u << count) - 1;
  }
  return bits == 0;
}

PublicKey key_in(std::string_view block) {
  std::string text;
  std::copy_if(block.begin(), block.end(), std::back_inserter(text), [](char c) { return c != '\n' && c != '\r'; });
  std::vector<uint8_t> bytes;
  PublicKey key;
  if (!decode_base64(text, &bytes) || bytes.size() != sizeof kKeyHead + key.size() ||
      !std::equal(std::begin(kKeyHead), std::end(kKeyHead), bytes.begin())) {
    throw InputError("public key", "an Ed25519 public key (PEM)", "something else");
  }
  std::copy(bytes.begin() + sizeof kKeyHead, bytes.end(), key.begin());
  return key;
}

const std::string& text(const Json& object, const char* name) {
  const Json* found = object.find(name);
  if (found == nullptr || found->kind != Json::Kind::kString) throw harness::JsonError(std::string("no ") + name);
  return found->string;
}

struct Signature {
  std::string key_id;
  SignatureBytes bytes;
};

Signature parse_signature(std::string_view json) {
  const Json root = harness::parse_json(json);
  const Json* version = root.find("format_version");
  if (text(root, "format") != "voxpress-signature" || version == nullptr || version->integer != 1 ||
      text(root, "algorithm") != "ed25519") {
    throw harness::JsonError("another format, version or algorithm");
  }
  Signature signature;
  signature.key_id = text(root, "key_id");
  std::vector<uint8_t> bytes;
  if (!decode_base64(text(root, "signature"), &bytes) || bytes.size() != signature.bytes.size()) {
    throw harness::JsonError("a signature that is not 64 bytes in base64");
  }
  std::copy(bytes.begin(), bytes.end(), signature.bytes.begin());
  return signature;
}

std::string ids_of(const std::vector<PublicKey>& keys) {
  std::string ids;
  for (const PublicKey& key : keys) ids += (ids.empty() ? "" : " or ") + key_id(key);
  return ids;
}

}  // namespace

std::vector<PublicKey> parse_public_keys(std::string_view pem) {
  std::vector<PublicKey> keys;
  for (size_t at = pem.find(kBegin); at != std::string_view::npos; at = pem.find(kBegin, at)) {
    at += kBegin.size();
    const size_t end = pem.find(kEnd, at);
    if (end == std::string_view::npos) break;
    keys.push_back(key_in(pem.substr(at, end - at)));
    at = end;
  }
  if (keys.empty()) throw InputError("public key", "an Ed25519 public key (PEM)", "no whole PEM block");
  return keys;
}

std::string key_id(const PublicKey& key) { return harness::sha256_hex(key.data(), key.size()).substr(0, 16); }

std::string check_signature(std::string_view manifest, std::string_view signature_json,
                            const std::vector<PublicKey>& keys, const Verifier& verify, const std::string& path) {
  const std::string expected = "a signature of key " + ids_of(keys);
  Signature signature;
  try {
    signature = parse_signature(signature_json);
  } catch (const harness::JsonError& error) {
    throw InputError(path, "a bundle's signature", error.what());
  }
  const auto key = std::find_if(keys.begin(), keys.end(),
                                [&signature](const PublicKey& known) { return key_id(known) == signature.key_id; });
  if (key == keys.end()) {
    const bool plain = signature.key_id.find_first_not_of("0123456789abcdef") == std::string::npos;
    throw InputError(path, expected, plain ? "one of key " + signature.key_id : "one of a malformed key id");
  }
  if (!verify(*key, std::string(kPrefix).append(manifest), signature.bytes)) {
    throw InputError(path, expected, "a signature of other bytes");
  }
  return signature.key_id;
}

}  // namespace voxpress::core
