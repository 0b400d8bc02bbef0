"""Bundles on this machine, fetched from a registry: whole, checked, and fetched once.

<cache>/<name>/<version>-<first 12 digits of the zip's sha256>/   the bundle's folder
<cache>/<name>/<the same>.json                                    the record that it was published with
<cache>/<name>/.<the same>.zip.part                               what a killed fetch has so far
<cache>/<name>/.lock                                              held while one process fetches; others wait
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporters.bundle.archive import unzip_bundle
from exporters.bundle.manifest import MANIFEST_FILE
from exporters.bundle.trust import Trust, Trusted, check_bundle
from exporters.release.registry import Registry, VersionRecord
from pipeline.errors import InputError, VoxPressError
from pipeline.files import folder_written_whole, read_json, sha256_file, write_atomically
from pipeline.progress import Progress


@dataclass(frozen=True)
class Fetched:
    """A bundle in the cache."""

    folder: Path
    record: VersionRecord
    trusted: Trusted
    from_cache: bool


def default_cache() -> Path:
    """Folder named by VOXPRESS_CACHE, else `voxpress` in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    named = os.environ.get("VOXPRESS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxpress"


def fetch(reference: str, registry: Registry, cache: Path, trust: Trust, progress: Progress) -> Fetched:
    """The bundle that `reference` means, from the cache or the registry.

    reference: NAME@VERSION, NAME@CHANNEL, or NAME for its channel `latest`. A version that is in the cache is taken
    from there without asking the registry, since versions do not change; it is checked again all the same, and fetched
    anew if it is damaged. A killed fetch is gone on with.

    Raises InputError naming what is not there, damaged in the registry, or not to be trusted; nothing is left then.
    """
    name, _, wanted = reference.partition("@")
    if not name or (not wanted and "@" in reference):
        raise InputError(reference, expected="NAME, NAME@VERSION or NAME@CHANNEL", found="none of these")
    version = registry.resolve(name, wanted or "latest")
    with _alone_in(cache / name):
        return _fetch(name, version, registry, cache / name, trust, progress)


def _fetch(name: str, version: str, registry: Registry, place: Path, trust: Trust, progress: Progress) -> Fetched:
    record = _cached_record(place, name, version) or registry.record(name, version)
    folder = place / f"{version}-{record.sha256[:12]}"
    if folder.is_dir():
        try:
            trusted = _check(folder, record, trust)
            _tidy(folder, record)
            return Fetched(folder, record, trusted, from_cache=True)
        except InputError as error:
            if _is_whole(folder, record):
                raise  # whole, but not to be trusted: fetching it again would not help
            progress.say(f"{error}; fetching it again")
    partial = folder.with_name(f".{folder.name}.zip.part")
    _download(record, registry, partial, progress)
    with folder_written_whole(folder) as fresh:
        unzip_bundle(partial, fresh)
        trusted = _check(fresh, record, trust)
    _tidy(folder, record)
    return Fetched(folder, record, trusted, from_cache=False)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise VoxPressError(f"{folder}: could not be written: {error.strerror or error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tidy(folder: Path, record: VersionRecord) -> None:
    """What is left to do once a bundle's folder is in its place, also if the process that put it there was killed."""
    if not _record_file(folder).is_file():
        write_atomically(_record_file(folder), record.model_dump_json(indent=1) + "\n")
    for leftover in folder.parent.glob(f".{folder.name}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def copy_out(fetched: Fetched, out: Path) -> Path:
    """Copy a fetched bundle's folder to `out/<name>-<version>`, whole or not at all; returns that folder.

    Raises InputError if something else is there.
    """
    folder = out / f"{fetched.record.name}-{fetched.record.version}"
    if folder.exists():
        check_bundle(folder, Trust(name=fetched.record.name, min_version=fetched.record.version))
    with folder_written_whole(folder) as fresh:
        shutil.copytree(fetched.folder, fresh, dirs_exist_ok=True)
    return folder


def _cached_record(folder: Path, name: str, version: str) -> VersionRecord | None:
    for path in sorted(folder.glob(f"{version}-*.json")):
        try:
            record = read_json(path, VersionRecord, what="a version's record")
        except InputError:
            continue  # the registry has a good one
        if (record.name, record.version) == (name, version):
            return record
    return None


def _record_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _check(folder: Path, record: VersionRecord, trust: Trust) -> Trusted:
    trusted = check_bundle(folder, trust)
    manifest = trusted.manifest
    if (manifest.name, manifest.version) != (record.name, record.version):
        found = f"{manifest.name} {manifest.version}"
        raise InputError(folder, expected=f"{record.name} {record.version}", found=found)
    if sha256_file(folder / MANIFEST_FILE) != record.manifest_sha256:
        raise InputError(folder / MANIFEST_FILE, expected=f"sha256 {record.manifest_sha256}", found="other bytes")
    return trusted


def _is_whole(folder: Path, record: VersionRecord) -> bool:
    try:
        _check(folder, record, Trust())
    except InputError:
        return False
    return True


def _download(record: VersionRecord, registry: Registry, partial: Path, progress: Progress) -> None:
    """Bring a version's zip into `partial`, going on behind the pieces that are there."""
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        with partial.open("r+b") as stream, progress.task(f"fetch {record.name}", len(record.parts)) as task:
            kept = _kept_parts(stream.fileno(), record)
            task.advance(kept)
            stream.truncate(min(kept * record.part_bytes, record.bytes))
            stream.seek(0, os.SEEK_END)
            for index in range(kept, len(record.parts)):
                stream.write(registry.read_part(record, index))
                stream.flush()
                task.advance()
            os.fsync(stream.fileno())
    except OSError as error:
        raise VoxPressError(f"{partial}: could not be written: {error.strerror or error}") from error
    found = sha256_file(partial)
    if found != record.sha256:
        partial.unlink()
        raise InputError(
            f"{registry.url}: {record.name} {record.version}", expected=f"sha256 {record.sha256}", found=found
        )


def _kept_parts(descriptor: int, record: VersionRecord) -> int:
    """How many whole pieces a partial file begins with."""
    for index, sha256 in enumerate(record.parts):
        data = os.pread(descriptor, record.part_size(index), index * record.part_bytes)
        if hashlib.sha256(data).hexdigest() != sha256:
            return index
    return len(record.parts)
