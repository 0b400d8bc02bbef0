"""Registries: a plain directory, or any place that fsspec reaches (s3://, gs://, ...), with published bundles.

<root>/<name>/data/<sha256 of the zip>/<number>.part    the zip in pieces of 8 MiB; one after the other they are the zip
<root>/<name>/versions/<version>.json                   what was published under a version: the zip's sha256, its pieces
<root>/<name>/channels/<channel>.json                   which version a channel, such as `latest`, stands at

A version is there from the moment its record is, and the record is written last, whole, and only if there is none:
whatever is stopped before leaves pieces that nobody refers to, and the next publication of the same bundle goes on from
them. Pieces carry the sha256 of what they belong to in their path, so that two publishers cannot mix theirs.

One small object is written whole or not at all: in a directory by a link to a finished file, elsewhere by the store's
own put, which object stores make atomic. Where fsspec's backend has a conditional put (S3, GCS), two publishers who
race for one version are told apart by the store.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import fsspec
import pydantic
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from exporters.bundle.manifest import MAX_BUNDLE_BYTES, BundleName, SemanticVersion, Sha256
from exporters.bundle.version import Version
from pipeline.errors import GateError, InputError, VoxPressError
from pipeline.files import PARTIAL_MARK, first_problem, sha256_file
from pipeline.progress import Progress

LATEST = "latest"
PART_BYTES = 8 << 20
ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_\-]{0,31}$")]

_MAX_RECORD_BYTES = 1 << 20
_Record = TypeVar("_Record", bound=BaseModel)
_CHANNEL_TRIES = 8


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VersionRecord(_Frozen):
    """What was published under a version."""

    format: Literal["voxpress-version"] = "voxpress-version"
    format_version: Literal[1] = 1
    name: BundleName
    version: SemanticVersion
    sha256: Sha256 = Field(description="of the zip")
    bytes: Annotated[int, Field(gt=0, le=MAX_BUNDLE_BYTES + (1 << 26))]
    manifest_sha256: Sha256
    signed_by: str | None = Field(description="key that the signature names; whoever fetches has to check it")
    part_bytes: PositiveInt
    parts: tuple[Sha256, ...] = Field(description="sha256 of every piece; all but the last have part_bytes")

    @model_validator(mode="after")
    def _parts_make_the_whole(self) -> VersionRecord:
        if len(self.parts) != -(-self.bytes // self.part_bytes):
            raise ValueError(f"{len(self.parts)} parts of {self.part_bytes} bytes are not {self.bytes} bytes")
        return self

    def part_size(self, index: int) -> int:
        """Bytes of a piece."""
        return min(self.part_bytes, self.bytes - index * self.part_bytes)


class ChannelRecord(_Frozen):
    """Which version a channel stands at."""

    format: Literal["voxpress-channel"] = "voxpress-channel"
    format_version: Literal[1] = 1
    version: SemanticVersion


class Registry:
    """A registry at a path or URL.

    Methods raise VoxPressError naming the URL if the place cannot be reached or written, InputError for what is not
    there or malformed, GateError where something published would be overwritten.
    """

    def __init__(self, url: str | Path) -> None:
        """Raises InputError for a kind of URL that is not known or whose package is not installed."""
        self.url = str(url)
        try:
            # Listings of another process's writes must be seen at once.
            self._fs, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            expected = "a directory, or a URL of a kind that fsspec and its installed packages know"
            raise InputError(self.url, expected=expected, found=str(error)) from None
        self._root = str(root).rstrip("/")
        protocols = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        self._is_directory = "file" in protocols

    def names(self) -> list[str]:
        """Names that something was published under."""
        with self._reaching():
            names = [name for name in self._children(self._root) if _is_valid(name, _NAME)]
        return sorted(name for name in names if self.versions(name))

    def versions(self, name: str) -> list[Version]:
        """Published versions, rising; none for a name that is not there."""
        with self._reaching():
            files = self._children(f"{self._folder(name)}/versions")
        versions = [entry.removesuffix(".json") for entry in files if entry.endswith(".json") and entry[0] != "."]
        return sorted(Version.parse(version, f"{self.url}: {name}") for version in versions)

    def channels(self, name: str) -> dict[str, str]:
        """Version of every channel."""
        with self._reaching():
            files = self._children(f"{self._folder(name)}/channels")
        channels = sorted(entry.removesuffix(".json") for entry in files if entry.endswith(".json") and entry[0] != ".")
        return {channel: version for channel in channels if (version := self.channel(name, channel)) is not None}

    def record(self, name: str, version: str) -> VersionRecord:
        """What was published under a version. Raises InputError if nothing was."""
        path = self._version_path(name, version)
        data = self._read(path)
        if data is None:
            known = ", ".join(map(str, self.versions(name))) or "none"
            raise InputError(f"{self.url}: {name}", expected=f"a version among {known}", found=version)
        record = self._parsed(path, data, VersionRecord)
        if (record.name, record.version) != (name, version):
            raise InputError(path, expected=f"the record of {name} {version}", found=f"{record.name} {record.version}")
        return record

    def channel(self, name: str, channel: str) -> str | None:
        """The version that a channel stands at; None: there is no such channel."""
        path = self._channel_path(name, channel)
        data = self._read(path)
        return None if data is None else self._parsed(path, data, ChannelRecord).version

    def resolve(self, name: str, wanted: str) -> str:
        """The version that `wanted`, a version or a channel, means. Raises InputError if it means none."""
        if wanted[:1].isdigit():
            return str(Version.parse(wanted, "version"))
        version = self.channel(name, wanted)
        if version is None:
            known = ", ".join(self.channels(name)) or "none"
            raise InputError(f"{self.url}: {name}", expected=f"a channel among {known}", found=wanted)
        return version

    def publish(self, archive: Path, record: VersionRecord, progress: Progress) -> bool:
        """Publish a bundle's zip under the record's version; False if the same bytes were published before.

        Goes on from what a killed publication left. Raises GateError if another bundle has the version.
        """
        if self._published(record):
            return False
        with progress.task(f"publish {record.name} {record.version}", len(record.parts)) as task:
            for index in range(len(record.parts)):
                self._put_part(archive, record, index)
                task.advance()
        path = self._version_path(record.name, record.version)
        # Another publisher may have been faster; then this says whether it published the same.
        return self._put(path, _json(record), replace=False) or not self._published(record)

    def advance(self, name: str, channel: str, version: str) -> str:
        """Move a channel forward to a version, never back; returns where it stands then."""
        for _ in range(_CHANNEL_TRIES):
            now = self.channel(name, channel)
            if now is not None and Version.parse(now, channel) >= Version.parse(version, channel):
                return now
            self._put(self._channel_path(name, channel), _json(ChannelRecord(version=version)), replace=True)
            # Read again: where two publishers write at the same time, the one with the later version stays.
        raise VoxPressError(f"{self.url}: channel {channel} of {name} is being moved by others; try again")

    def set_channel(self, name: str, channel: str, version: str) -> None:
        """Point a channel at a published version, an earlier one too: the way back from a bad release.

        Raises InputError if the version is not published.
        """
        self.record(name, version)
        self._put(self._channel_path(name, channel), _json(ChannelRecord(version=version)), replace=True)

    def read_part(self, record: VersionRecord, index: int) -> bytes:
        """A piece of a published zip. Raises InputError if it is missing or its bytes are not those published."""
        path = self._part_path(record, index)
        data = self._read(path, limit=record.part_size(index))
        if data is None:
            raise InputError(path, expected="a piece of a published bundle", found="no such object")
        found = hashlib.sha256(data).hexdigest()
        if found != record.parts[index]:
            raise InputError(path, expected=f"sha256 {record.parts[index]}", found=found)
        return data

    def _published(self, record: VersionRecord) -> bool:
        """Whether just this is published. Raises GateError if the version is taken by another bundle."""
        if self._read(self._version_path(record.name, record.version)) is None:
            return False
        there = self.record(record.name, record.version)
        if there.sha256 != record.sha256:
            raise GateError(
                f"{self.url}: {record.name} {record.version}: expected a version that is not taken, found another "
                f"bundle published under it (sha256 {there.sha256})"
            )
        return True

    def _put_part(self, archive: Path, record: VersionRecord, index: int) -> None:
        path = self._part_path(record, index)
        with archive.open("rb") as stream:
            stream.seek(index * record.part_bytes)
            data = stream.read(record.part_size(index))
        if hashlib.sha256(data).hexdigest() != record.parts[index]:
            raise InputError(archive, expected="the zip that is being published", found="one that has changed")
        there = self._read(path, limit=record.part_size(index))
        if there != data:  # missing, or damaged by whatever wrote it
            self._put(path, data, replace=True)

    def _folder(self, name: str) -> str:
        return f"{self._root}/{_checked(name, _NAME, 'name')}"

    def _version_path(self, name: str, version: str) -> str:
        return f"{self._folder(name)}/versions/{Version.parse(version, 'version')}.json"

    def _channel_path(self, name: str, channel: str) -> str:
        return f"{self._folder(name)}/channels/{_checked(channel, _CHANNEL, 'channel')}.json"

    def _part_path(self, record: VersionRecord, index: int) -> str:
        return f"{self._folder(record.name)}/data/{record.sha256}/{index:05d}.part"

    def _children(self, folder: str) -> list[str]:
        try:
            return [Path(str(entry)).name for entry in self._fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    def _read(self, path: str, limit: int = _MAX_RECORD_BYTES) -> bytes | None:
        """Bytes of an object, at most one more than `limit`; None if it is not there."""
        with self._reaching():
            try:
                data: bytes = self._fs.cat_file(path, start=0, end=limit + 1)
            except FileNotFoundError:
                return None
        return data

    def _put(self, path: str, data: bytes, *, replace: bool) -> bool:
        """Write an object whole; without `replace`, False if there is one."""
        with self._reaching():
            if self._is_directory:
                return _put_in_directory(Path(path), data, replace=replace)
            try:
                self._fs.pipe_file(path, data, mode="overwrite" if replace else "create")
            except Exception:
                # Stores say "there is one" in words of their own.
                if not replace and self._fs.exists(path):
                    return False
                raise
            return True

    def _parsed(self, path: str, data: bytes, model: type[_Record]) -> _Record:
        try:
            return model.model_validate_json(data)
        except pydantic.ValidationError as error:
            raise InputError(path, expected="a registry's record", found=first_problem(error)) from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn what a backend raises into one line; each has exceptions of its own, of no common kind."""
        try:
            yield
        except VoxPressError:
            raise
        except Exception as error:
            raise VoxPressError(f"{self.url}: {' '.join(str(error).split()) or type(error).__name__}") from error


def version_record(
    archive: Path,
    manifest_sha256: str,
    *,
    name: str,
    version: str,
    signed_by: str | None,
    part_bytes: int = PART_BYTES,
) -> VersionRecord:
    """The record under which a bundle's zip is published."""
    parts = []
    with archive.open("rb") as stream:
        while chunk := stream.read(part_bytes):
            parts.append(hashlib.sha256(chunk).hexdigest())
    return VersionRecord(
        name=name,
        version=version,
        sha256=sha256_file(archive),
        bytes=archive.stat().st_size,
        manifest_sha256=manifest_sha256,
        signed_by=signed_by,
        part_bytes=part_bytes,
        parts=tuple(parts),
    )


def _put_in_directory(path: Path, data: bytes, *, replace: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(beside, 0o644)
        if replace:
            os.replace(beside, path)
            return True
        os.link(beside, path)  # unlike a rename, never takes the place of another
    except FileExistsError:
        return False
    finally:
        Path(beside).unlink(missing_ok=True)
    return True


def _json(record: BaseModel) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _is_valid(value: str, adapter: pydantic.TypeAdapter[str]) -> bool:
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _checked(value: str, adapter: pydantic.TypeAdapter[str], what: str) -> str:
    if not _is_valid(value, adapter):
        raise InputError(what, expected="lower-case letters, digits, - and _", found=repr(value[:80]))
    return value


_NAME: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(BundleName)
_CHANNEL: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(ChannelName)
