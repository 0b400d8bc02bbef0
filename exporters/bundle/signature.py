"""Signatures: who vouches for a bundle. Ed25519 over the manifest, which holds the hash of every file.

The signed message is a fixed prefix and the bytes of `manifest.json`: the prefix keeps a signature made for something
else from counting here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import InputError
from pipeline.files import read_json, write_atomically

SIGNATURE_FILE = "signature.json"
MAX_SIGNATURE_BYTES = 4096

_PREFIX = b"voxpress bundle manifest, signature 1\n"


class Signature(BaseModel):
    """`signature.json`: the signature of a manifest, and which key made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["voxpress-signature"] = "voxpress-signature"
    format_version: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="of the public key; tells keys apart only")]
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$", description="64 bytes, base64")]

    def json_bytes(self) -> bytes:
        """The bytes of `signature.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def make_key_pair(private: Path, public: Path) -> str:
    """Write a new key pair as PEM files, the private one readable by its owner only; returns the key's id.

    Raises InputError if one of the files is there already: a lost key cannot be made again.
    """
    for path in (private, public):
        if path.exists():
            raise InputError(path, expected="a new file, as keys are not replaced", found="a file")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.parent.mkdir(parents=True, exist_ok=True)
    private.touch(mode=0o600, exist_ok=False)
    private.write_bytes(pem)
    write_atomically(
        public,
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    return key_id(key.public_key())


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Private key of a PEM file. Raises InputError naming the file if it holds none that is Ed25519."""
    expected = "an Ed25519 private key (PEM, without a password)"
    try:
        key = serialization.load_pem_private_key(_read(path, expected), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(path, expected=expected, found="something else") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(path, expected=expected, found="a key of another kind")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Public key of a PEM file. Raises InputError naming the file if it holds none that is Ed25519."""
    expected = "an Ed25519 public key (PEM)"
    try:
        key = serialization.load_pem_public_key(_read(path, expected))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(path, expected=expected, found="something else") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(path, expected=expected, found="a key of another kind")
    return key


def sign_manifest(manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """Signature of the bytes of a manifest."""
    signature = base64.b64encode(key.sign(_PREFIX + manifest)).decode()
    return Signature(key_id=key_id(key.public_key()), signature=signature)


def write_signature(folder: Path, manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """Sign the bytes of a bundle's manifest and write `signature.json` beside it."""
    signature = sign_manifest(manifest, key)
    write_atomically(folder / SIGNATURE_FILE, signature.json_bytes())
    return signature


def read_signature(folder: Path) -> Signature | None:
    """The signature of a bundle; None: it is not signed. Raises InputError naming the file if it is malformed."""
    path = folder / SIGNATURE_FILE
    if not path.exists() and not path.is_symlink():
        return None
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_SIGNATURE_BYTES:
        raise InputError(path, expected="a bundle's signature", found="something else")
    return read_json(path, Signature, what="a bundle's signature")


def check_signature(
    manifest: bytes, signature: Signature | None, keys: Sequence[Ed25519PublicKey], name: str | Path
) -> str:
    """Check that one of `keys` signed the bytes of a manifest; returns its id.

    Raises InputError naming the bundle if it is not signed, signed by another key, or if the signature does not hold.
    """
    known = {key_id(key): key for key in keys}
    expected = f"a signature of key {' or '.join(known)}"
    if signature is None:
        raise InputError(name, expected=expected, found="no signature")
    key = known.get(signature.key_id)
    if key is None:
        raise InputError(name, expected=expected, found=f"one of key {signature.key_id}")
    try:
        key.verify(base64.b64decode(signature.signature, validate=True), _PREFIX + manifest)
    except (InvalidSignature, binascii.Error):
        raise InputError(name, expected=expected, found="a signature of other bytes") from None
    return signature.key_id


def _read(path: Path, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, expected=expected, found=error.strerror or str(error)) from None
