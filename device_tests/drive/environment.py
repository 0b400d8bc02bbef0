"""The machine a run is made on, as far as it lets itself be read."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel, ValidationError

from device_tests.records import EngineRecord, Environment, Machine, MachineState
from exporters.native import native_path
from pipeline.errors import VoxPressError

PACKAGES = (
    *("ai-edge-litert", "executorch", "numpy", "safetensors", "torch"),
    *("MNN", "ncnn", "onnx", "onnxruntime", "openvino", "pnnx", "tensorflow", "torchao"),
)


def environment_of(record: EngineRecord) -> Environment:
    """What an engine says of its machine, as it was before it began, and the versions of what drives it here."""
    return _environment(record.machine, record.before)


def host_environment() -> Environment:
    """What this machine is now, as the runner reads it. Raises MissingToolError if that is not built."""
    runner = native_path("tflite_runner")
    done = subprocess.run([str(runner), "--machine"], capture_output=True, text=True, check=False)
    try:
        said = _Said.model_validate_json(done.stdout)
    except ValidationError:
        raise VoxPressError(f"{runner} --machine: expected a description, found: {done.stderr.strip()}") from None
    return _environment(said.machine, said.state)


class _Said(BaseModel):
    machine: Machine
    state: MachineState


def _environment(machine: Machine, state: MachineState) -> Environment:
    return Environment(
        os=machine.os,
        kernel=machine.kernel,
        cpu_model=machine.cpu_model,
        cpu_features=machine.cpu_features,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes,
        governor=state.governor,
        clock_hz=max(state.clock_hz, default=None),
        load_average=None if state.load_milli is None else state.load_milli / 1000,
        python=platform.python_version(),
        voxpress=_version("voxpress") or "source tree",
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
    )


def environment_notes(environment: Environment) -> list[str]:
    """What about the machine makes its timings less trustworthy."""
    notes = []
    load = environment.load_average
    if load is not None and load > 0.5 * environment.cores:
        notes.append(
            f"1-minute load was {load:.1f} on {environment.cores} cores as the run began: timings are disturbed"
        )
    if environment.governor is not None and environment.governor != "performance":
        notes.append(f"clock governor is {environment.governor!r}: the clock may have changed during the run")
    return notes


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
