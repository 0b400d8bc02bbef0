// Who vouches for a bundle, see exporters/bundle/signature.py: Ed25519 over a fixed prefix and the manifest's bytes.
// The curve itself is the platform's: this reads keys and signatures and hands them to a verifier.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "voxpress.h"

namespace voxpress::core {

using PublicKey = std::array<uint8_t, VOXPRESS_ED25519_KEY_BYTES>;
using SignatureBytes = std::array<uint8_t, VOXPRESS_ED25519_SIGNATURE_BYTES>;
using Verifier = std::function<bool(const PublicKey& key, const std::string& message, const SignatureBytes& signature)>;

// The Ed25519 public keys of a text's PEM blocks, at least one. Throws InputError.
std::vector<PublicKey> parse_public_keys(std::string_view pem);

// The first 16 hex digits of the sha256 of a raw public key.
std::string key_id(const PublicKey& key);

// Checks that one of `keys` signed the bytes of a manifest, by the text of `signature.json`; returns its id. Throws
// InputError naming `path` if the signature is malformed, of another key, or of other bytes.
std::string check_signature(std::string_view manifest, std::string_view signature, const std::vector<PublicKey>& keys,
                            const Verifier& verify, const std::string& path);

}  // namespace voxpress::core
