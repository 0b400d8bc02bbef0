"""Publishes small bundles in small pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporters.bundle.manifest import MANIFEST_FILE
from exporters.release.registry import Registry, VersionRecord, version_record
from pipeline.files import sha256_file
from pipeline.progress import Progress
from tests.exporters.bundle.made import made_zip

QUIET = Progress.silent()
PART_BYTES = 1000


def prepared(folder: Path, version: str = "1.0.0", **fields: Any) -> tuple[Path, VersionRecord]:
    """A bundle's zip of some ten pieces and its record."""
    archive = folder / f"net-{version}.zip"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = made_zip(archive, version=version, padding=fields.pop("padding", 5000), **fields)
    sha256 = sha256_file(archive.with_suffix("") / MANIFEST_FILE)
    record = version_record(archive, sha256, name=manifest.name, version=version, signed_by=None, part_bytes=PART_BYTES)
    return archive, record


def publish(place: str, folder: Path, version: str = "1.0.0", **fields: Any) -> VersionRecord:
    archive, record = prepared(folder, version, **fields)
    registry = Registry(place)
    assert registry.publish(archive, record, QUIET)
    registry.advance(record.name, "latest", version)
    return record
