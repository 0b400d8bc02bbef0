"""The delegate behind TFLite's external delegate, as stock benchmark_model loads it (see native/external_wrapper.cc).

That program comes with no package; its protocol is followed here in the interpreters that do. What stays unchecked is
the program itself: how it reads its own command line, and its runtime's build.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import exporters.tflite
from exporters.native import native_path
from exporters.runtimes import RUNTIMES, run_model
from exporters.tflite.emit import emit_tflite
from tests.factories import tiny_artifact

LENGTHS = (30, 98, 200, 98)


def _run(folder: Path, module: str, options: str) -> subprocess.CompletedProcess[str]:
    library = native_path("tflite_delegate")
    wrapper = library.parent / "libvoxpress_external_wrapper.so"
    program = Path(exporters.tflite.__path__[0]) / "any_runtime.py"
    words = [program, module, wrapper, "1", folder / "m.tflite", folder / "inputs.npz", folder / "outputs.npz"]
    environment = {**os.environ, "VOXPRESS_INNER": str(library), "VOXPRESS_OPTIONS": options}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def _write(folder: Path) -> dict[str, np.ndarray]:
    (folder / "m.tflite").write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    rng = np.random.default_rng(0)
    inputs = {f"{i}": rng.normal(0, 2, (1, frames, 80)).astype(np.float32) for i, frames in enumerate(LENGTHS)}
    np.savez(folder / "inputs.npz", allow_pickle=False, **inputs)
    return inputs


@pytest.mark.parametrize(
    "runtime",
    ["litert", pytest.param("tensorflow", marks=pytest.mark.slow)],  # TensorFlow takes its time to import
)
@pytest.mark.parametrize("options", ["", "low_memory:1", "low_memory:0;low_memory:1"])
def test_it_gives_the_bits_of_the_delegate_itself(runtime: str, options: str, tmp_path: Path) -> None:
    inputs = _write(tmp_path)
    done = _run(tmp_path, RUNTIMES[runtime].module, options)
    assert done.returncode == 0, done.stderr[-1000:]
    direct = run_model(RUNTIMES[runtime], tmp_path / "m.tflite", inputs)
    with np.load(tmp_path / "outputs.npz") as found:
        for name, embedding in direct.items():
            np.testing.assert_array_equal(found[name], embedding)


@pytest.mark.parametrize("options", ["low_memory:2", "fast:1", "low_memory"])
def test_options_that_it_does_not_know_are_refused(options: str, tmp_path: Path) -> None:
    _write(tmp_path)
    done = _run(tmp_path, RUNTIMES["litert"].module, options)
    assert done.returncode == 2
    assert "Failed to load delegate" in done.stderr
    assert not (tmp_path / "outputs.npz").exists()
