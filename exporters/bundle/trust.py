"""Whom a bundle is from and how old it may be, on top of its being whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters.bundle.contents import check_contents
from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.bundle.signature import check_signature, read_public_key, read_signature
from exporters.bundle.version import Version
from pipeline.errors import InputError


@dataclass(frozen=True)
class Trust:
    """What is asked of a bundle: one of these keys' signature (none: no signature is asked for), a lowest version."""

    keys: Sequence[Path] = ()
    min_version: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Trusted:
    """A bundle that was checked."""

    manifest: Manifest
    signed_by: str | None  # id of the key whose signature was checked
    claims: str | None  # id of the key that the signature names, checked or not


def check_bundle(folder: Path, trust: Trust, *, name: str | Path | None = None) -> Trusted:
    """Check that a bundle's folder is whole and fulfils `trust`. `name`: what messages call the bundle.

    Raises InputError naming the file or bundle and the reason.
    """
    named = name or folder
    keys = [read_public_key(path) for path in trust.keys]
    wanted = None if trust.min_version is None else Version.parse(trust.min_version, "--min-version")
    manifest = check_contents(folder)
    signature = read_signature(folder)
    signed_by = None
    if keys:
        signed_by = check_signature((folder / MANIFEST_FILE).read_bytes(), signature, keys, named)
    if trust.name is not None and manifest.name != trust.name:
        raise InputError(named, expected=f"a bundle of {trust.name}", found=f"one of {manifest.name}")
    if wanted is not None and Version.parse(manifest.version, str(named)) < wanted:
        raise InputError(named, expected=f"version {trust.min_version} or later", found=f"{manifest.version}, older")
    return Trusted(manifest, signed_by, None if signature is None else signature.key_id)
