"""Converters that are programs of a Python package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import MissingToolError


def run_program(name: str, words: Sequence[str], *, folder: Path) -> str:
    """Run a program that pip has put beside this Python, in `folder`; returns the last line it said.

    Raises MissingToolError if there is none of that name, RuntimeError with its last line if it fails.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise MissingToolError(f"{path}: expected a converter's program, found no such file")
    done = subprocess.run(
        [str(path), *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing"
    if done.returncode != 0:
        raise RuntimeError(f"{name} ended with code {done.returncode}, saying: {last}")
    return last
