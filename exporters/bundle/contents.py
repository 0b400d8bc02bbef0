"""A bundle's folder, read with suspicion: every file is the manifest's, byte for byte, and there is no other."""

from __future__ import annotations

import os
from pathlib import Path

import pydantic

from exporters.bundle.manifest import MANIFEST_FILE, Manifest, parse_manifest_json
from exporters.bundle.signature import SIGNATURE_FILE
from pipeline.errors import InputError
from pipeline.files import first_problem, sha256_file

MAX_MANIFEST_BYTES = 1 << 24


def read_manifest(folder: Path) -> Manifest:
    """Manifest of a bundle. Raises InputError naming the file if it is missing or malformed."""
    path = folder / MANIFEST_FILE
    try:
        if path.is_symlink():
            raise InputError(path, expected="a bundle's manifest", found="a symlink")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError(path, expected=f"at most {MAX_MANIFEST_BYTES} bytes", found=f"{path.stat().st_size}")
        text = path.read_bytes()
    except FileNotFoundError:
        raise InputError(path, expected="a bundle's manifest", found="no such file") from None
    except OSError as error:
        raise InputError(path, expected="a bundle's manifest", found=error.strerror or str(error)) from None
    return manifest_from(text, path)


def manifest_from(text: bytes, path: str | Path) -> Manifest:
    """Manifest in the bytes of `manifest.json`. Raises InputError naming `path` if they are malformed."""
    try:
        return parse_manifest_json(text)
    except pydantic.ValidationError as error:
        raise InputError(path, expected="a bundle's manifest", found=first_problem(error)) from None
    except ValueError as error:
        raise InputError(path, expected="a bundle's manifest", found=str(error)) from None


def checked_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """Path of a bundle's file whose bytes are what the manifest says; InputError naming the file if they are not."""
    path, entry = folder / name, manifest.files.get(name)
    if entry is None:
        raise InputError(folder / MANIFEST_FILE, expected=f"an entry for {name}", found="none")
    inside = folder
    for part in Path(name).parts:
        inside = inside / part
        if inside.is_symlink():
            raise InputError(inside, expected="a file of the bundle", found="a symlink")
    if not path.is_file():
        raise InputError(path, expected="a file of the bundle", found="no such file")
    if path.stat().st_size != entry.bytes:
        raise InputError(path, expected=f"{entry.bytes} bytes", found=f"{path.stat().st_size}")
    found = sha256_file(path)
    if found != entry.sha256:
        raise InputError(path, expected=f"sha256 {entry.sha256}", found=found)
    return path


def check_contents(folder: Path) -> Manifest:
    """Check that every file of the manifest is there with its hash, and nothing else. Returns the manifest.

    Raises InputError naming the first file that is missing, changed, too many, a symlink or something else than a file.
    """
    manifest = read_manifest(folder)
    for name in manifest.files:
        checked_file(folder, manifest, name)
    for parent, folders, files in os.walk(folder):
        for entry in sorted((*folders, *files)):
            path = Path(parent) / entry
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise InputError(path, expected="a file or folder of the bundle", found="a symlink")
            if path.is_dir():
                if not any(known.startswith(f"{name}/") for known in manifest.files):
                    raise InputError(path, expected="only folders that the manifest names", found="an extra folder")
            elif not path.is_file():
                raise InputError(path, expected="a file of the bundle", found="no regular file")
            elif name not in manifest.files and name not in (MANIFEST_FILE, SIGNATURE_FILE):
                raise InputError(path, expected="only files that the manifest names", found="an extra file")
    return manifest
