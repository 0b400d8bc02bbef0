"""Signatures and lowest versions: who made a bundle, and that it is not an old one offered again."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.bundle.signature import SIGNATURE_FILE, make_key_pair, read_private_key, read_public_key
from exporters.bundle.signing import sign_bundle
from exporters.bundle.trust import Trust, check_bundle
from exporters.bundle.write import list_files
from pipeline.errors import InputError
from tests.exporters.bundle.made import made_bundle, made_zip


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A private key, its public key, and the public key of someone else."""
    make_key_pair(tmp_path / "a.pem", tmp_path / "a.pub.pem")
    make_key_pair(tmp_path / "b.pem", tmp_path / "b.pub.pem")
    return tmp_path / "a.pem", tmp_path / "a.pub.pem", tmp_path / "b.pub.pem"


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path, Path]) -> Path:
    made_bundle(tmp_path / "net")
    sign_bundle(tmp_path / "net", keys[0])
    return tmp_path / "net"


def test_a_signature_holds(signed: Path, keys: tuple[Path, Path, Path]) -> None:
    trusted = check_bundle(signed, Trust(keys=keys[1:2]))
    assert trusted.signed_by == trusted.claims
    assert check_bundle(signed, Trust(keys=(keys[2], keys[1]))).signed_by == trusted.signed_by
    assert check_bundle(signed, Trust()).signed_by is None


def test_a_private_key_is_its_owners_and_is_never_replaced(keys: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    with pytest.raises(InputError, match=r"a.pem: expected a new file"):
        make_key_pair(keys[0], tmp_path / "new.pub.pem")


def test_the_same_key_signs_the_same(signed: Path, keys: tuple[Path, Path, Path]) -> None:
    before = (signed / SIGNATURE_FILE).read_bytes()
    sign_bundle(signed, keys[0])
    assert (signed / SIGNATURE_FILE).read_bytes() == before


def test_a_zip_is_signed_where_it_lies(tmp_path: Path, keys: tuple[Path, Path, Path]) -> None:
    made_zip(tmp_path / "zipped.zip")
    by_zip = sign_bundle(tmp_path / "zipped.zip", keys[0])
    assert sign_bundle(tmp_path / "zipped", keys[0]) == by_zip
    before = (tmp_path / "zipped.zip").read_bytes()
    sign_bundle(tmp_path / "zipped.zip", keys[0])
    assert (tmp_path / "zipped.zip").read_bytes() == before


def test_another_key_no_signature_and_other_bytes_are_refused(signed: Path, keys: tuple[Path, Path, Path]) -> None:
    with pytest.raises(InputError, match="found one of key"):
        check_bundle(signed, Trust(keys=keys[2:]))
    # A manifest that is well formed, with files to match, but not the one that was signed.
    (signed / "frontend.json").write_bytes(b"[]\n")
    values = Manifest.model_validate_json((signed / MANIFEST_FILE).read_bytes())
    (signed / MANIFEST_FILE).unlink()
    signature = (signed / SIGNATURE_FILE).read_bytes()
    (signed / SIGNATURE_FILE).unlink()
    forged = values.model_copy(update={"files": list_files(signed)})
    (signed / MANIFEST_FILE).write_bytes(forged.json_bytes())
    with pytest.raises(InputError, match="found no signature"):
        check_bundle(signed, Trust(keys=keys[1:2]))
    (signed / SIGNATURE_FILE).write_bytes(signature)
    with pytest.raises(InputError, match="a signature of other bytes"):
        check_bundle(signed, Trust(keys=keys[1:2]))


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "AAAA"},
        {"signature": "A" * 86 + "=="},
        {"algorithm": "none"},
        {"key_id": "0" * 16},
        {"format_version": 2},
        {"more": 1},
    ],
)
def test_signatures_that_are_none(signed: Path, keys: tuple[Path, Path, Path], change: dict[str, object]) -> None:
    path = signed / SIGNATURE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError):
        check_bundle(signed, Trust(keys=keys[1:2]))


def test_an_older_version_than_pinned_is_refused(signed: Path) -> None:
    for good in ("0.9.9", "1.0.0"):
        check_bundle(signed, Trust(min_version=good))
    for newer in ("1.0.1", "1.1.0", "10.0.0"):
        with pytest.raises(InputError, match=f"expected version {newer} or later, found 1.0.0"):
            check_bundle(signed, Trust(min_version=newer))
    with pytest.raises(InputError, match=r"--min-version: expected a version major.minor.patch, found 'latest'"):
        check_bundle(signed, Trust(min_version="latest"))


def test_another_name_is_refused(signed: Path) -> None:
    with pytest.raises(InputError, match="expected a bundle of other, found one of net"):
        check_bundle(signed, Trust(name="other"))


def test_keys_that_are_none(tmp_path: Path, keys: tuple[Path, Path, Path]) -> None:
    rsa = generate_private_key(public_exponent=65537, key_size=1024).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    locked = read_private_key(keys[0]).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    for name, data in {"rsa": rsa, "locked": locked, "empty": b"", "public": keys[1].read_bytes()}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}: expected an Ed25519 private key"):
            read_private_key(tmp_path / name)
    for name in (keys[0].name, "empty", "nowhere"):
        with pytest.raises(InputError, match=f"{name}: expected an Ed25519 public key"):
            read_public_key(tmp_path / name)
