"""Where the native libraries and programs are that `make native` builds, and what runtimes say unasked."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pipeline.errors import MissingToolError

NativeName = Literal[
    "kernels_capi", "pte_ops", "tflite_delegate", "pte_runner", "tflite_runner", "kernel_bench", "voxpress"
]

_FILES: dict[NativeName, str] = {
    "kernels_capi": "libvoxpress_kernels_capi.so",
    "pte_ops": "libvoxpress_pte_ops.so",
    "tflite_delegate": "libvoxpress_tflite_delegate.so",
    "pte_runner": "voxpress_pte_runner",
    "tflite_runner": "voxpress_tflite_runner",
    "kernel_bench": "voxpress_kernel_bench",
    "voxpress": "libvoxpress.so",
}


def native_path(name: NativeName) -> Path:
    """Path of a native library or program.

    Looked up in the folder named by VOXPRESS_NATIVE_DIR, else in `build/native` of the source tree.
    Raises MissingToolError, saying how to build it, if it is not there.
    """
    folder = Path(os.environ.get("VOXPRESS_NATIVE_DIR") or Path(__file__).resolve().parent.parent / "build" / "native")
    path = folder / _FILES[name]
    if not path.is_file():
        raise MissingToolError(f"{path}: expected the native build's {name}, found no such file; run `make native`")
    return path


@contextmanager
def native_chatter_held_back() -> Iterator[None]:
    """Both runtimes greet on the process's stderr from C++; it is shown only if something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            yield
        except BaseException:
            chatter.seek(0)
            os.write(kept, chatter.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
