"""Readers of outside bytes on mutated inputs, with AddressSanitizer and UndefinedBehaviorSanitizer, bounded in time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from exporters.native import native_path
from tests.fuzz.corpus import corpus, write_corpus
from tests.kernels.sanitized import sanitized_build

COUNT = 200_000  # some 20 seconds


def _fuzz(folder: Path, seed: int, count: int, files: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [folder / "voxpress_fuzz", seed, count, *files]
    environment = {
        **os.environ,
        "UBSAN_OPTIONS": "halt_on_error=1,print_stacktrace=1",
        "ASAN_OPTIONS": "detect_leaks=1",
    }
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment, timeout=600, check=False
    )


def test_mutated_inputs_do_no_harm(tmp_path: Path) -> None:
    files = write_corpus(tmp_path / "corpus")
    done = _fuzz(native_path("tflite_delegate").parent, 0, 20_000, files)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{20_000 + len(corpus())} inputs\n"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_inputs_do_no_harm_under_sanitizers(seed: int, tmp_path: Path) -> None:
    done = _fuzz(sanitized_build(), seed, COUNT, write_corpus(tmp_path / "corpus"))
    assert done.returncode == 0, done.stderr[-4000:]
