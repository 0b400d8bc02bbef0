"""Bundles as zips: what `voxpress release` writes opens as it is, and nothing else does."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporters.bundle.archive import zip_bundle
from tests.device_tests.core.capi import CoreError, open_bundle
from tests.device_tests.core.signed import Signed, changed, public_pem
from tests.factories import speech_like


@pytest.fixture
def archive(signed: Signed, tmp_path: Path) -> Path:
    path = tmp_path / "tiny-1.2.0.zip"
    zip_bundle(signed.folder, path)
    return path


def refused(archive: Path, storage: Path | None) -> str:
    with pytest.raises(CoreError) as caught:
        open_bundle(archive, public_pem(), storage=None if storage is None else str(storage))
    assert storage is None or not [path for path in storage.rglob("*") if path.is_file()]
    return str(caught.value)


def test_a_zip_decides_as_its_folder_does(signed: Signed, archive: Path, tmp_path: Path) -> None:
    opened = open_bundle(archive, public_pem(), storage=str(tmp_path / "storage"))
    folder = open_bundle(signed.folder, public_pem())
    assert opened.info().model == folder.info().model
    np.testing.assert_array_equal(opened.embed(speech_like(1.0)), folder.embed(speech_like(1.0)))
    # What runs, and nothing of what does not.
    (place,) = (tmp_path / "storage" / "tiny").iterdir()
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert files == {"manifest.json", "signature.json", "models/tiny-4bit.pte", "models/tiny-4bit.tflite"}
    opened.close()
    folder.close()


def test_a_zip_is_unpacked_once_and_replaced_by_another(signed: Signed, archive: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    place = storage / "tiny"
    first = open_bundle(archive, public_pem(), storage=str(storage))
    (unpacked,) = place.iterdir()
    stamps = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    for left in (unpacked.name, "other", "other.part"):  # of processes that were killed
        (place / f"{left}.part").mkdir()
    open_bundle(archive, public_pem(), storage=str(storage)).close()
    assert {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")} == stamps
    newer = tmp_path / "newer.zip"
    zip_bundle(changed(signed, tmp_path / "newer", version="1.3.0"), newer)
    second = open_bundle(newer, public_pem(), storage=str(storage))
    (other,) = place.iterdir()
    assert other != unpacked
    # The older one is gone, but still runs where it is open.
    np.testing.assert_array_equal(first.embed(speech_like(1.0)), second.embed(speech_like(1.0)))
    first.close()
    second.close()


def test_a_zip_needs_a_place(archive: Path, tmp_path: Path) -> None:
    assert (
        refused(archive, None) == f"{archive}: expected a folder of the app to unpack this zip into, found no storage"
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(CoreError, match="expected a folder to write to, found Not a directory"):
        open_bundle(archive, public_pem(), storage=str(tmp_path / "file"))


def rezipped(archive: Path, change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(archive) as stream:
        content = {name: stream.read(name) for name in stream.namelist()}
    change(content)
    with zipfile.ZipFile(archive, "w", method) as stream:
        for name, data in content.items():
            stream.writestr(name, data)


def other_byte(content: dict[str, bytes], name: str) -> None:
    data = bytearray(content[name])
    data[len(data) // 2] ^= 1
    content[name] = bytes(data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: other_byte(content, "models/tiny-4bit.pte"), ":models/tiny-4bit.pte: expected sha256 "),
        # An app does not unpack this one, but what was changed is no release.
        (lambda content: other_byte(content, "golden/utterance.wav"), ":golden/utterance.wav: expected sha256 "),
        (lambda content: other_byte(content, "manifest.json"), "found a signature of other bytes"),
        (lambda content: content.pop("signature.json"), ":signature.json: expected an entry of the bundle, found none"),
        (lambda content: content.pop("models/tiny-4bit.pte"), ":models/tiny-4bit.pte: expected an entry of the bundle"),
        (lambda content: content.update({"extra": b"x"}), "expected only files that the manifest names"),
        (lambda content: content.update({"../escape": b"x"}), "expected only files that the manifest names"),
        (lambda content: content.update({"models/tiny-4bit.pte": b"short"}), "bytes, found 5"),
    ],
)
def test_a_changed_zip_writes_nothing(
    archive: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], reason: str
) -> None:
    rezipped(archive, change)
    line = refused(archive, tmp_path / "storage")
    assert line.startswith(str(archive))
    assert reason in line


def test_a_compressed_zip_is_refused(archive: Path, tmp_path: Path) -> None:
    rezipped(archive, lambda content: None, zipfile.ZIP_DEFLATED)
    assert refused(archive, tmp_path / "storage") == (
        f"{archive}: expected a bundle's zip as voxpress release writes it, found a compressed entry"
    )


def test_bytes_that_belong_to_no_entry_are_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    (table_at,) = struct.unpack_from("<I", whole, len(whole) - 6)
    hidden = b"hidden"
    moved = bytearray(whole[:table_at] + hidden + whole[table_at:])
    struct.pack_into("<I", moved, len(moved) - 6, table_at + len(hidden))
    archive.write_bytes(moved)
    zipfile.ZipFile(archive).close()  # others read it
    assert refused(archive, tmp_path / "storage").endswith("found one that is cut or damaged")


def test_broken_zips_are_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    table_at = struct.unpack_from("<I", whole, len(whole) - 6)[0]
    rng = np.random.default_rng(5)
    broken = [b"", b"PK", whole[:100], whole[:-1], whole + b"\0", whole[table_at:], b"\0" + whole]
    # Entries that begin or end elsewhere, counts and sizes that are not so.
    for at in (len(whole) - 12, len(whole) - 10, len(whole) - 6, table_at + 24, table_at + 28, table_at + 42):
        for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            changed_bytes = bytearray(whole)
            struct.pack_into("<I", changed_bytes, at, value)
            broken.append(bytes(changed_bytes))
    for _ in range(40):
        changed_bytes = bytearray(whole)
        changed_bytes[int(rng.integers(table_at, len(whole)))] ^= int(rng.integers(1, 256))
        broken.append(bytes(changed_bytes))
    opened, reasons = 0, list[str]()
    for data in broken:
        archive.write_bytes(data)
        storage = tmp_path / "storage"
        if data == whole:
            continue
        try:
            open_bundle(archive, public_pem(), storage=str(storage)).close()
            opened += 1  # times, rights and the like mean nothing to an app
        except CoreError as error:
            reasons.append(str(error))
    assert all(reason.startswith(str(archive)) for reason in reasons)
    assert opened < len(broken) / 2
