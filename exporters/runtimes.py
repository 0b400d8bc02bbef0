"""The runtimes of this machine that run model files, each in a process of its own, and their versions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

import exporters
from exporters.exported import Format
from exporters.native import native_path
from pipeline.errors import MissingToolError, VoxPressError

Floats = npt.NDArray[np.float32]

# Where `make tflite-runtime` puts the old runtime and the NumPy it needs; VOXPRESS_TFLITE_RUNTIME_DIR names another.
_OLD_RUNTIME = Path(__file__).resolve().parent.parent / "build" / "tflite-runtime"
_TIMEOUT_SECONDS = 600


class RuntimeRefusedError(VoxPressError):
    """A runtime does not run a model; the message is the runtime's own reason."""


@dataclass(frozen=True)
class LocalRuntime:
    """A runtime that may be on this machine."""

    name: str
    format: Format
    package: str
    module: str = ""  # of the TFLite runtimes' Python interpreter

    @property
    def version(self) -> str | None:
        """Its version; None if it is not installed."""
        if self.name == "tflite-runtime":
            found = sorted(_old_runtime_folder().glob("tflite_runtime-*.dist-info"))
            return found[0].name.split("-")[1].removesuffix(".dist") if found else None
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        LocalRuntime("executorch", "pte", "executorch"),
        LocalRuntime("litert", "tflite", "ai-edge-litert", "ai_edge_litert.interpreter"),
        LocalRuntime("tensorflow", "tflite", "tensorflow", "tensorflow.lite.python.interpreter"),
        LocalRuntime("tflite-runtime", "tflite", "tflite-runtime", "tflite_runtime.interpreter"),
    )
}


def run_model(
    runtime: LocalRuntime,
    model: Path,
    inputs: Mapping[str, Floats],
    *,
    with_our_ops: bool = True,
    threads: int = 1,
) -> dict[str, Floats]:
    """Outputs [N, E] by name of inputs [N, T, mel] or [N, S] (N up to a .pte's max_batch); see `run_models`."""
    return run_models(runtime, [(model, inputs)], with_our_ops=with_our_ops, threads=threads)[0]


def run_models(
    runtime: LocalRuntime,
    jobs: Sequence[tuple[Path, Mapping[str, Floats]]],
    *,
    with_our_ops: bool = True,
    threads: int = 1,
) -> list[dict[str, Floats]]:
    """Outputs of several models, each on its inputs, one after the other in a new process.

    `with_our_ops`: with our delegate or op library, as an app that links it. Raises RuntimeRefusedError with the
    runtime's reason (or the signal that ended it) for the first model that it refuses, MissingToolError if the runtime
    or our library is not there.
    """
    if runtime.version is None:
        what = f"{runtime.name}: expected the runtime on this machine, found none"
        raise MissingToolError(f"{what}; {how_to_get(runtime)}")
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        words, targets = [], []
        for index, (model, inputs) in enumerate(jobs):
            source, target = Path(name) / f"{index}-inputs.npz", Path(name) / f"{index}-outputs.npz"
            np.savez(source, allow_pickle=False, **inputs)
            words += [str(model), str(source), str(target)]
            targets.append(target)
        if runtime.format == "pte":
            library = str(native_path("pte_ops")) if with_our_ops else "-"
            command = [sys.executable, "-m", "exporters.pte.any_model", library]
        else:
            delegate = str(native_path("tflite_delegate")) if with_our_ops else "-"
            program = str(Path(__file__).parent / "tflite" / "any_runtime.py")
            python = [sys.executable, *(["-S"] if runtime.name == "tflite-runtime" else [])]
            command = [*python, program, runtime.module, delegate, str(threads)]
        _run(runtime, [*command, *words])
        outputs = []
        for target in targets:
            with np.load(target) as stored:
                outputs.append({key: np.asarray(stored[key], np.float32) for key in stored.files})
    return outputs


def _run(runtime: LocalRuntime, command: list[str]) -> None:
    root = str(Path(exporters.__file__).resolve().parent.parent)
    path = str(_old_runtime_folder()) if runtime.name == "tflite-runtime" else root
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeRefusedError(f"no answer within {_TIMEOUT_SECONDS} s") from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    # ExecuTorch's exception only holds a number; which op is missing stands in its log.
    missing = [line for line in lines if "Missing operator" in line]
    reason = (missing or lines[-1:] or [f"exit code {done.returncode}"])[0]
    if done.returncode < 0:
        reason = f"the runtime's process was ended by {signal.Signals(-done.returncode).name}"
    raise RuntimeRefusedError(" ".join(reason.split()))


def _old_runtime_folder() -> Path:
    return Path(os.environ.get("VOXPRESS_TFLITE_RUNTIME_DIR") or _OLD_RUNTIME)


def how_to_get(runtime: LocalRuntime) -> str:
    """What brings a runtime onto this machine."""
    return "run `make tflite-runtime`" if runtime.name == "tflite-runtime" else f"install {runtime.package}"
