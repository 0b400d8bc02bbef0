"""Bundles as one file: a zip whose bytes follow from its contents alone, and the strict way back.

Entries are stored, not deflated: packed codes hardly shrink, the bytes do not depend on the version of a compressor, an
app can map a model where it lies, and what an entry unpacks to is never more than the file that it came in. They are
sorted, have one fixed time and fixed rights. Whatever deviates from that is refused, so that there is one zip, and one
sha256, for one bundle.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.bundle.contents import MAX_MANIFEST_BYTES, check_contents, manifest_from
from exporters.bundle.manifest import MANIFEST_FILE, MAX_FILES, Manifest
from exporters.bundle.signature import MAX_SIGNATURE_BYTES, SIGNATURE_FILE
from pipeline.errors import InputError, VoxPressError
from pipeline.files import PARTIAL_MARK, sha256_file

# zip knows no time before this one.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_RIGHTS = (stat.S_IFREG | 0o644) << 16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_CHUNK = 1 << 20


def zip_bundle(folder: Path, archive: Path) -> None:
    """Zip a bundle's folder: its manifest's files, the manifest and the signature if there is one.

    The same bundle gives the same bytes. Raises InputError as `check_contents`: nothing is zipped unseen.
    """
    manifest = check_contents(folder)
    names = {*manifest.files, MANIFEST_FILE, *([SIGNATURE_FILE] if (folder / SIGNATURE_FILE).is_file() else [])}
    descriptor, beside = tempfile.mkstemp(prefix=f".{archive.name}{PARTIAL_MARK}", dir=archive.parent)
    os.close(descriptor)
    try:
        _write_zip(folder, sorted(names), Path(beside))
        os.chmod(beside, 0o644)
        os.replace(beside, archive)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _write_zip(folder: Path, names: list[str], archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as stream:
        for name in names:
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = _RIGHTS
            entry.file_size = (folder / name).stat().st_size  # so that a large entry gets room for its size at once
            with stream.open(entry, "w") as target, (folder / name).open("rb") as source:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)


def unzip_bundle(archive: Path, folder: Path) -> Manifest:
    """Unpack a bundle's zip into an empty folder and check it; returns the manifest.

    Raises InputError naming the archive and the reason for anything but the bytes that `zip_bundle` writes: damage, an
    entry that escapes the folder, a symlink, a bomb, an entry twice, a file that the manifest does not name. What was
    unpacked until then is the caller's to remove.
    """
    try:
        with zipfile.ZipFile(archive) as stream:
            entries = _checked_entries(archive, stream)
            manifest = manifest_from(stream.read(MANIFEST_FILE), f"{archive}:{MANIFEST_FILE}")
            _check_names(archive, entries, manifest)
            for name in entries:
                _unpack(stream, name, folder / name)
        check_contents(folder)
        _check_canonical(archive, folder, sorted(entries))
    except InputError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise InputError(archive, expected="a whole bundle zip", found=str(error) or type(error).__name__) from None
    return manifest


@contextmanager
def opened_bundle(bundle: Path) -> Iterator[Path]:
    """The folder of a bundle: itself, or unpacked from its zip while the block lasts.

    Raises InputError as `unzip_bundle`; a folder's contents are not checked here.
    """
    if bundle.is_dir():
        yield bundle
        return
    if not bundle.is_file():
        raise InputError(bundle, expected="a bundle's folder or zip", found="no such file or folder")
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        try:
            unzip_bundle(bundle, Path(name))
            yield Path(name)
        except VoxPressError as error:
            # The user knows the archive, not where it was unpacked for the moment.
            error.args = (str(error).replace(f"{name}/", f"{bundle}:"),)
            raise


def _checked_entries(archive: Path, stream: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos, size = stream.infolist(), archive.stat().st_size
    if len(infos) > MAX_FILES + 2:
        raise InputError(archive, expected=f"at most {MAX_FILES + 2} entries", found=f"{len(infos)}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        where = f"{archive}:{info.filename[:240]!r}"
        if not _PLAIN_NAME.fullmatch(info.filename) or info.orig_filename != info.filename:
            raise InputError(where, expected="a plain path inside the bundle", found="one that may lead out of it")
        if info.filename in entries:
            raise InputError(where, expected="every entry once", found="an entry twice")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            found = "a symlink" if kind == stat.S_IFLNK else "something else"
            raise InputError(where, expected="a regular file", found=found)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            found = f"{info.compress_size} bytes that unpack to {info.file_size}, as a zip bomb would"
            raise InputError(where, expected="a stored entry", found=found)
        if info.flag_bits & 1:
            raise InputError(where, expected="a stored entry", found="an encrypted one")
        entries[info.filename] = info
    total = sum(info.file_size for info in infos)
    if total > size:
        raise InputError(archive, expected=f"entries of at most {size} bytes", found=f"{total}, as a zip bomb has")
    if MANIFEST_FILE not in entries:
        raise InputError(archive, expected="a bundle with manifest.json", found="no such entry")
    for name, limit in ((MANIFEST_FILE, MAX_MANIFEST_BYTES), (SIGNATURE_FILE, MAX_SIGNATURE_BYTES)):
        if name in entries and entries[name].file_size > limit:
            raise InputError(f"{archive}:{name}", expected=f"at most {limit} bytes", found=f"{entries[name].file_size}")
    return entries


def _check_names(archive: Path, entries: dict[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    for name in sorted(entries.keys() - manifest.files.keys() - {MANIFEST_FILE, SIGNATURE_FILE}):
        raise InputError(f"{archive}:{name}", expected="only files that the manifest names", found="an extra file")
    for name, entry in sorted(manifest.files.items()):
        if name not in entries:
            raise InputError(f"{archive}:{name}", expected="a file of the bundle", found="no such entry")
        if entries[name].file_size != entry.bytes:
            found = f"{entries[name].file_size}"
            raise InputError(f"{archive}:{name}", expected=f"{entry.bytes} bytes", found=found)


def _unpack(stream: zipfile.ZipFile, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with stream.open(name) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)


def _check_canonical(archive: Path, folder: Path, names: list[str]) -> None:
    """Bytes around the entries could hide anything or make two archives of one bundle: there is one way to write it."""
    with tempfile.NamedTemporaryFile(prefix=f".{folder.name.lstrip('.')}{PARTIAL_MARK}", dir=folder.parent) as again:
        _write_zip(folder, names, Path(again.name))
        if sha256_file(Path(again.name)) != sha256_file(archive):
            raise InputError(archive, expected="the bytes that VoxPress writes for this bundle", found="others")
