"""TFLite's interpreter as a C library: what LiteRT 1's AAR holds under another name, see android/interpreter.lock."""

from __future__ import annotations

import platform
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def interpreter_library(processor: str | None = None) -> Path:
    """Path of the library for a processor, by default this machine's."""
    path = ROOT / "build" / "tflite-interpreter" / (processor or platform.machine()) / "libtensorflowlite_c.so"
    assert path.is_file(), f"{path}: expected TFLite's interpreter, found none; run `make interpreter`"
    return path
