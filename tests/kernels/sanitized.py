"""A build of the native code, without ExecuTorch, with AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build_tool(name: str) -> str:
    """A build tool of this environment, or of the PATH."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.is_file() else shutil.which(name)
    assert found is not None, f"{name} is needed to build the kernels"
    return found


@cache
def sanitized_build() -> Path:
    """Folder of the build, made once for all tests of a run."""
    folder = Path(tempfile.mkdtemp(prefix="voxpress-sanitized-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={build_tool('ninja')}"]
    options = ["-DVOXPRESS_SANITIZE=ON", "-DVOXPRESS_EXECUTORCH=OFF"]
    for command in (["-S", str(ROOT), "-B", str(folder), *generator, *options], ["--build", str(folder), "-j2"]):
        subprocess.run([build_tool("cmake"), *command], check=True, capture_output=True)
    return folder
