"""One bundle, one zip: whatever differs from it is refused, names the reason, and writes nothing outside its folder."""

from __future__ import annotations

import io
import random
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporters.bundle.archive import opened_bundle, unzip_bundle, zip_bundle
from exporters.bundle.manifest import MANIFEST_FILE
from pipeline.errors import InputError, VoxPressError
from tests.exporters.bundle.made import made_bundle, made_zip

Entries = list[tuple[zipfile.ZipInfo, bytes]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    made_zip(tmp_path / "net.zip")
    return tmp_path / "net.zip"


def test_the_same_bundle_is_the_same_zip(tmp_path: Path, archive: Path) -> None:
    other = tmp_path / "elsewhere" / "net.zip"
    made_zip(other)
    for path in (tmp_path / "elsewhere" / "net").rglob("*"):
        if path.is_file():
            path.touch()
            path.chmod(0o600)
    zip_bundle(tmp_path / "elsewhere" / "net", other)
    assert other.read_bytes() == archive.read_bytes()


def test_a_zip_unpacks_to_its_folder(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "out").mkdir()
    manifest = unzip_bundle(archive, tmp_path / "out")
    before = {p.relative_to(tmp_path / "net"): p.read_bytes() for p in (tmp_path / "net").rglob("*") if p.is_file()}
    after = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert before == after
    assert {str(path) for path in after} == {*manifest.files, MANIFEST_FILE}


def test_messages_name_the_archive_and_not_where_it_was_unpacked(archive: Path) -> None:
    with pytest.raises(InputError) as caught, opened_bundle(archive) as folder:
        raise InputError(folder / "models" / "x.pte", expected="this", found="that")
    assert str(caught.value) == f"{archive}:models/x.pte: expected this, found that"


def test_a_bundle_that_is_not_whole_is_not_zipped(tmp_path: Path) -> None:
    made_bundle(tmp_path / "net")
    (tmp_path / "net" / "frontend.json").write_bytes(b"{ }")
    with pytest.raises(InputError, match=r"frontend.json: expected sha256"):
        zip_bundle(tmp_path / "net", tmp_path / "net.zip")
    assert {path.name for path in tmp_path.iterdir()} == {"net"}


def _read(archive: Path) -> Entries:
    with zipfile.ZipFile(archive) as stream:
        return [(info, stream.read(info)) for info in stream.infolist()]


def _write(archive: Path, entries: Entries) -> None:
    with zipfile.ZipFile(archive, "w") as stream:
        for info, data in entries:
            stream.writestr(info, data, compress_type=info.compress_type)


def _like(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    copy = zipfile.ZipInfo(name, info.date_time)
    copy.external_attr, copy.compress_type = info.external_attr, info.compress_type
    return copy


def _added(name: str, data: bytes = b"x", **attributes: int) -> Callable[[Entries], Entries]:
    def change(entries: Entries) -> Entries:
        info = _like(entries[0][0], name)
        for key, value in attributes.items():
            setattr(info, key, value)
        return [*entries, (info, data)]

    return change


def _bomb(entries: Entries) -> Entries:
    info, _ = entries[-1]
    info.compress_type = zipfile.ZIP_DEFLATED
    return [*entries[:-1], (info, b"\0" * 50_000_000)]


def _swapped(entries: Entries) -> Entries:
    data = {info.filename: content for info, content in entries}
    one, two = "models/net-4bit.pte", "models/net-4bit.tflite"
    data[one], data[two] = data[two], data[one]
    return [(info, data[info.filename]) for info, _ in entries]


def _symlink(entries: Entries) -> Entries:
    entries[-1][0].external_attr = (stat.S_IFLNK | 0o777) << 16
    return [*entries[:-1], (entries[-1][0], b"/etc/passwd")]


def _edited(before: bytes, after: bytes) -> Callable[[Entries], Entries]:
    return lambda entries: [
        (info, data.replace(before, after) if info.filename == MANIFEST_FILE else data) for info, data in entries
    ]


def _later(entries: Entries) -> Entries:
    entries[0][0].date_time = (1999, 1, 1, 0, 0, 0)
    return entries


TRICKS: list[tuple[str, Callable[[Entries], Entries], str]] = [
    ("path up", _added("../escaped"), "lead out of it"),
    ("path up inside", _added("models/../../escaped"), "lead out of it"),
    ("absolute path", _added("/tmp/voxpress-escaped"), "lead out of it"),
    ("backslash", _added("..\\escaped"), "lead out of it"),
    ("drive", _added("C:escaped"), "lead out of it"),
    ("hidden file", _added(".profile"), "lead out of it"),
    ("folder entry", _added("models/"), "lead out of it"),
    ("empty name", _added(""), "lead out of it"),
    ("zero byte in the name", _added("models/a\0b"), ""),
    ("extra file", _added("models/extra.pte"), "an extra file"),
    ("entry twice", _added("frontend.json", b"{}\n"), "an entry twice"),
    ("capitals", _added("FRONTEND.json", b"{}\n"), "an extra file"),
    ("device file", _added("models/tty", external_attr=(stat.S_IFCHR | 0o666) << 16), "something else"),
    ("symlink", _symlink, "a symlink"),
    ("bomb", _bomb, "zip bomb"),
    ("deflated", _added("models/x", b"0" * 1000, compress_type=zipfile.ZIP_DEFLATED), "zip bomb"),
    ("missing file", lambda entries: [e for e in entries if e[0].filename != "frontend.json"], "no such entry"),
    ("no manifest", lambda entries: [e for e in entries if e[0].filename != MANIFEST_FILE], "no such entry"),
    ("empty", lambda entries: [], "no such entry"),
    ("swapped files", _swapped, "expected 3 bytes"),
    ("other order", lambda entries: entries[::-1], "the bytes that VoxPress writes"),
    ("other times", _later, "the bytes that VoxPress writes"),
    ("manifest of another format", _edited(b"voxpress-bundle", b"foxpress-bundle"), "a bundle's manifest"),
    ("newer format", _edited(b'"format_version": 1', b'"format_version": 2'), "format version 2"),
    ("escape in the manifest", _edited(b'"frontend.json"', b'"../frontend.json"'), "a bundle's manifest"),
    ("unknown key", _edited(b'"name":', b'"nome":'), "a bundle's manifest"),
    ("not JSON", _edited(b"{", b"["), "a bundle's manifest"),
    ("deep nesting", _edited(b"{", b"[" * 100_000), "a bundle's manifest"),
    ("a size that is none", _edited(b'"bytes": 3', b'"bytes": -3'), "a bundle's manifest"),
    ("a size beyond all", _edited(b'"bytes": 3', b'"bytes": 99999999999999999999'), "a bundle's manifest"),
    ("version that is none", _edited(b'"version": "1.0.0"', b'"version": "1.0.0/.."'), "a bundle's manifest"),
]


def _refused(archive: Path, tmp_path: Path, reason: str = "") -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    outside = {*tmp_path.iterdir(), *tmp_path.parent.iterdir()}
    started = time.monotonic()
    with pytest.raises(VoxPressError) as caught:
        unzip_bundle(archive, folder)
    assert time.monotonic() - started < 10
    assert reason in str(caught.value), caught.value
    assert "\n" not in str(caught.value)
    assert {*tmp_path.iterdir(), *tmp_path.parent.iterdir()} == outside
    assert not Path("/tmp/voxpress-escaped").exists()


@pytest.mark.parametrize(("change", "reason"), [trick[1:] for trick in TRICKS], ids=[trick[0] for trick in TRICKS])
def test_zip_tricks(tmp_path: Path, archive: Path, change: Callable[[Entries], Entries], reason: str) -> None:
    _write(archive, change(_read(archive)))
    _refused(archive, tmp_path, reason)


def _bytes_tricks(data: bytes, rng: random.Random) -> Iterator[bytes]:
    for _ in range(120):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(changed)
    for _ in range(30):
        yield data[: rng.randrange(len(data))]
    for _ in range(10):
        start = rng.randrange(len(data))
        yield data[:start] + data[start + rng.randrange(1, 200) :]
    for _ in range(10):
        start = rng.randrange(len(data))
        yield data[:start] + rng.randbytes(rng.randrange(1, 200)) + data[start:]
    yield data + b"\0"
    yield b"\0" + data
    yield data + data
    yield data[-22:]
    yield b""
    yield b"PK\5\6" + b"\0" * 18


def test_mutated_zips_are_all_refused(tmp_path: Path, archive: Path) -> None:
    """With the tricks above more than 200; every one is tried, so that a failure says how many there are."""
    accepted, words = [], []
    mutants = list(_bytes_tricks(archive.read_bytes(), random.Random(7)))
    assert len(mutants) + len(TRICKS) >= 200
    for number, mutant in enumerate(mutants):
        place = tmp_path / f"mutant-{number}"
        (place / "out").mkdir(parents=True)
        (place / "net.zip").write_bytes(mutant)
        started = time.monotonic()
        try:
            unzip_bundle(place / "net.zip", place / "out")
        except VoxPressError as error:
            words.append(str(error))
        else:
            accepted.append(number)
        assert time.monotonic() - started < 10
    assert accepted == []
    assert not [text for text in words if "\n" in text]


def test_a_comment_or_a_second_archive_inside_is_refused(tmp_path: Path, archive: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as stream:
        stream.writestr("a", "b")
    with zipfile.ZipFile(archive, "a") as stream:
        stream.comment = inner.getvalue()
    _refused(archive, tmp_path)
