"""What a device run leaves behind: raw measurements of every model file, and the circumstances they were taken in.

Sizes are in bytes, times in nanoseconds. Raw samples are kept; statistics are the report's business. The records are
the same for every device: an engine writes one `engine.json` per process, a driver gathers them into `run.json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file

from calibration.ranges import Mode
from exporters.manifest import Lowering, ModelInput
from pipeline.errors import InputError
from pipeline.files import read_json

ENGINE_FILE = "engine.json"
EMBEDDINGS_FILE = "embeddings.safetensors"
RUN_FILE = "run.json"

ModelFormat = Literal["pte", "tflite"]
DeviceClass = Literal["host", "emulator", "android", "ios"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A bare file name: records name files of their own folder, never a way out of it.
BareName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$")]
BitsLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-+]{1,40}$")]

Embedding = npt.NDArray[np.float32]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Frozen):
    """The machine that an engine process ran on, as it lets itself be read."""

    os: str
    kernel: str
    architecture: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: PositiveInt
    memory_bytes: NonNegativeInt


class MachineState(_Frozen):
    """What of a machine changes while a run goes on; empty or None where it does not say."""

    governor: str | None
    clock_hz: tuple[PositiveInt, ...] = Field(description="of every core that says so")
    max_clock_hz: tuple[PositiveInt, ...]
    temperature_mc: dict[str, int] = Field(description="thousandths of a degree Celsius by thermal zone")
    load_milli: NonNegativeInt | None = Field(description="1-minute load average times 1000")


class EngineRecord(_Frozen):
    """What one engine process says about one model file (`engine.json`)."""

    engine: Literal["executorch", "litert"]
    runtime_version: str
    model: str
    model_bytes: PositiveInt
    model_sha256: Sha256 = Field(description="of the bytes that were run")
    threads: PositiveInt
    kernels: tuple[str, ...] = Field(description="VoxPress kernels that ran in this process, sorted")
    delegates: tuple[str, ...]
    load_ns: NonNegativeInt
    first_ns: NonNegativeInt = Field(description="first inference of the process, buffers not yet warm")
    latency_ns: tuple[NonNegativeInt, ...] = Field(description="every timed run, in order")
    resident_before_bytes: NonNegativeInt
    resident_after_load_bytes: NonNegativeInt
    resident_after_run_bytes: NonNegativeInt
    peak_bytes: NonNegativeInt
    utterances: NonNegativeInt = Field(description="embeddings written; 0 in a run for speed alone")
    resumed: NonNegativeInt = Field(description="embeddings taken over from an earlier start that was cut off")
    machine: Machine
    before: MachineState = Field(description="before the model was loaded")
    after: MachineState = Field(description="after the last inference")


class Environment(_Frozen):
    """The machine, and the software, that a run was made on. None: this machine does not say."""

    os: str
    kernel: str
    cpu_model: str
    cpu_features: tuple[str, ...]
    cores: PositiveInt
    memory_bytes: PositiveInt
    governor: str | None = None
    clock_hz: PositiveInt | None = None
    load_average: float | None = Field(default=None, description="1-minute load as the run began")
    python: str
    voxpress: str
    packages: dict[str, str]


class Protocol(_Frozen):
    """How a run measures: `rounds` times, each model in turn, `warmup` + `runs` inferences of `speed_frames` frames."""

    warmup: NonNegativeInt = 2
    runs: PositiveInt = 10
    rounds: PositiveInt = 3
    threads: PositiveInt = 1
    speed_frames: PositiveInt = 200
    low_memory: bool = Field(default=False, description="weights stay packed and are expanded at each call")
    crop_seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="utterances were cut to this length before their features were made; None: whole"
    )


def portable_kernels(kernels: Iterable[str]) -> tuple[str, ...]:
    """Those of some kernels that are portable code, for want of one for this machine; pooling has no other."""
    return tuple(name for name in kernels if name.endswith("_portable") and not name.startswith("statspool_"))


class ModelRun(_Frozen):
    """Everything measured on one model file."""

    file: BareName
    sha256: Sha256
    file_bytes: PositiveInt = Field(description="with those of the .ptd that its weights lie in, if they do")
    weights_sha256: Sha256 | None = Field(default=None, description="of that .ptd; None: weights are in the file")
    bits: BitsLabel = Field(description='what was asked of the quantizer: "4bit", "fp32", "mixed-1.9MB"')
    format: ModelFormat
    lowering: Lowering
    mode: Mode = "exact"
    input: ModelInput = Field(default="fbank", description="features, or samples of which the model makes them itself")
    is_control: bool
    accuracy: EngineRecord = Field(description="the process that made the embeddings")
    rounds: tuple[EngineRecord, ...] = Field(description="one process per round, for speed and memory")
    embeddings: str = Field(pattern=r"^embeddings/[A-Za-z0-9_][A-Za-z0-9_.\-]*\.safetensors$")

    @property
    def latency_ns(self) -> tuple[int, ...]:
        """Timed runs of all rounds, in order."""
        return tuple(sample for record in self.rounds for sample in record.latency_ns)

    @property
    def kernels(self) -> tuple[str, ...]:
        """VoxPress kernels that ran in any process of this model, sorted."""
        return tuple(sorted({name for record in (self.accuracy, *self.rounds) for name in record.kernels}))

    @property
    def portable_kernels(self) -> tuple[str, ...]:
        """Those of the kernels that are portable code."""
        return portable_kernels(self.kernels)

    @property
    def delegates(self) -> tuple[str, ...]:
        """Delegates in use in any process of this model, sorted."""
        return tuple(sorted({name for record in (self.accuracy, *self.rounds) for name in record.delegates}))


class BundleIdentity(_Frozen):
    """Which bundle the model files are from."""

    name: str
    version: str
    manifest_sha256: Sha256


class RunRecord(_Frozen):
    """One run over several model files on one device (`run.json`)."""

    schema_version: Literal[2] = 2
    device: str = Field(description='"host", "qemu-aarch64", "adb:<serial>", ...')
    device_class: DeviceClass
    latency_valid: bool = Field(description="False where a device's timings mean nothing by design, as an emulator's")
    bundle: BundleIdentity | None = None
    started_at: datetime
    environment: Environment
    protocol: Protocol
    features_sha256: Sha256 = Field(description="of the features' keys, shapes and values")
    utterances: PositiveInt
    models: tuple[ModelRun, ...]
    missing: tuple[str, ...] = Field(default=(), description="what a device did not give back; empty: complete")
    notes: tuple[str, ...] = Field(default=(), description="what limits the worth of the measurements")

    @model_validator(mode="after")
    def _consistent(self) -> RunRecord:
        files = [model.file for model in self.models]
        if len(set(files)) != len(files):
            raise ValueError("a model file is listed twice")
        controls = [model.format for model in self.models if model.is_control]
        if len(set(controls)) != len(controls):
            raise ValueError("a format has more than one control")
        for model in self.models:
            rounds = [len(record.latency_ns) for record in model.rounds]
            if rounds != [self.protocol.runs] * (len(rounds) if self.missing else self.protocol.rounds):
                raise ValueError(f"{model.file} has not {self.protocol.rounds} rounds of {self.protocol.runs} runs")
        return self


def read_engine_record(folder: Path) -> EngineRecord:
    """The `engine.json` of a folder. Raises InputError if it is missing or malformed."""
    return read_json(folder / ENGINE_FILE, EngineRecord, what="an engine record")


def read_run(folder: Path) -> RunRecord:
    """The `run.json` of a folder. Raises InputError if it is missing or malformed."""
    return read_json(folder / RUN_FILE, RunRecord, what="a run record")


def read_embeddings(path: Path) -> dict[str, Embedding]:
    """Embeddings float32 [E] by utterance.

    Raises InputError for a missing or malformed file, tensors that are not float32 [E] of one E, and values that are
    not finite; the message names the utterance.
    """
    expected = "a safetensors file of float32 [E] embeddings"
    try:
        tensors: dict[str, Embedding] = load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected=expected, found="no such file") from None
    except (OSError, SafetensorError) as error:
        raise InputError(path, expected=expected, found=str(error)) from error
    size: int | None = None
    for utterance, embedding in sorted(tensors.items()):
        size = embedding.shape[0] if size is None and embedding.ndim == 1 else size
        if embedding.dtype != np.float32 or embedding.shape != (size,):
            raise InputError(path, expected=expected, found=f"{embedding.dtype} {embedding.shape} for {utterance!r}")
        if not np.isfinite(embedding).all():
            raise InputError(path, expected="finite embeddings", found=f"NaN or infinity for {utterance!r}")
    if size is None:
        raise InputError(path, expected=expected, found="no embeddings")
    return tensors
