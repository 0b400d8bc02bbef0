"""What made a benchmark's files and figures: files made by other code or another native build are not kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import device_tests
from exporters.native import NativeName, native_path

_ROOT = Path(device_tests.__file__).resolve().parent.parent

# Source folders that decide on what is written: of networks and their pressed forms, of our files, of the peers'.
PRESSING = (*(f"pipeline/{name}" for name in ("artifact", "corpus", "features", "models", "quantize")), "calibration")
EXPORTING = (*PRESSING, "exporters")
PEERS = ("pipeline/artifact", "exporters/peers", "exporters/pte")

# Our files are verified by these before they are kept, and layers' algorithms chosen by what they compute.
VERIFYING: tuple[NativeName, ...] = ("pte_ops", "tflite_delegate")
RUNNING: tuple[NativeName, ...] = ("pte_runner", "tflite_runner", "tflite_delegate")


@lru_cache
def sources_sha256(folders: tuple[str, ...]) -> str:
    """Hex sha256 over the names and bytes of all Python files below these folders of the source tree."""
    return _sha256((path.relative_to(_ROOT), path) for folder in folders for path in (_ROOT / folder).rglob("*.py"))


@lru_cache
def native_sha256(names: tuple[NativeName, ...]) -> str:
    """Hex sha256 over native libraries and programs. Raises MissingToolError if one is not built."""
    return _sha256((Path(name), native_path(name)) for name in names)


def _sha256(files: Iterable[tuple[Path, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name.as_posix()} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
