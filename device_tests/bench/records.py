"""What a benchmark leaves behind (`bench.json`): every raw sample of every contender, and what it was taken on.

Sizes are in bytes, times in nanoseconds. Ratios and medians are the report's business, computed from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from calibration.ranges import Mode
from device_tests.records import Environment, Sha256
from pipeline.files import read_json

BENCH_FILE = "bench.json"

# "voxpress": our own file. The others are the peers' kinds, see exporters/peers/catalogue.py.
Kind = Literal["voxpress", "fp32", "int8", "weight-only"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(_Frozen):
    """What a contender's process says once it has loaded its model and run it for the first time."""

    engine: str
    runtime_version: str
    threads: PositiveInt = Field(description="as the runtime has them")
    kernels: tuple[str, ...]
    delegates: tuple[str, ...]
    load_ns: NonNegativeInt
    first_ns: NonNegativeInt = Field(description="first inference of the process")
    resident_before_bytes: NonNegativeInt = Field(description="before the model is loaded, the runtime already is")
    resident_after_load_bytes: NonNegativeInt
    resident_after_first_bytes: NonNegativeInt


class KernelsHold(_Frozen):
    """What our ops hold in a process, by their own count (exporters/prepared/memory_use.h)."""

    weight_bytes: NonNegativeInt = Field(description="weights that are expanded and kept")
    scratch_bytes: NonNegativeInt = Field(description="the most that a layer was given, all its threads together")


class Memory(_Frozen):
    """What a contender's process holds after its last run."""

    resident_bytes: NonNegativeInt
    peak_bytes: NonNegativeInt
    kernels_hold: KernelsHold | None = Field(default=None, description="None where our ops are not part of the engine")
    kernels: tuple[str, ...] = Field(description="VoxPress kernels that ran in this process, sorted")


class Measured(_Frozen):
    """A contender at one utterance length and number of threads. `failure`: why there is no more of it."""

    frames: PositiveInt
    threads: PositiveInt
    starts: tuple[Start, ...] = Field(description="one per process")
    memory: tuple[Memory, ...] = Field(description="one per process")
    rounds: tuple[tuple[PositiveInt, ...], ...] = Field(description="timed runs of each turn, round by round")
    failure: str | None = None

    @property
    def samples_ns(self) -> tuple[int, ...]:
        """Timed runs of all rounds, in order."""
        return tuple(sample for turn in self.rounds for sample in turn)


class ModelFileRecord(_Frozen):
    """One file that a contender needs to run."""

    name: str
    bytes: PositiveInt
    sha256: Sha256


class ContenderRecord(_Frozen):
    """One row: what it is, its files, and all that was measured. `failure`: why nothing was."""

    name: str
    title: str
    kind: Kind
    runtime: str
    bits: str | None = Field(default=None, description='width of our weights: "4bit"; None for peers')
    mode: str | None = Field(default=None, description="our numeric mode; None for peers")
    files: tuple[ModelFileRecord, ...] = Field(description="of the length that is compared; its first is loaded")
    cosines: dict[str, float] = Field(description="to the reference embedding, by utterance")
    measured: tuple[Measured, ...]
    failure: str | None = None

    @property
    def file_bytes(self) -> int | None:
        """Bytes of all its files; None if there are none."""
        return sum(file.bytes for file in self.files) or None

    def at(self, frames: int, threads: int) -> Measured | None:
        """What was measured at a length and number of threads."""
        return next((one for one in self.measured if (one.frames, one.threads) == (frames, threads)), None)


@dataclass(frozen=True)
class LengthProtocol:
    """Processes, rounds of each and timed runs of a turn, at one utterance length."""

    starts: int
    rounds: int
    runs: int


class BenchProtocol(_Frozen):
    """How it was measured: `starts` times fresh processes, each for `rounds` rounds in which every contender has a
    turn of `warmup` + `runs` inferences, in an order drawn anew for each round. A process has as many cores as threads.
    Other lengths than `frames` are measured in one start of `growth_rounds` rounds of `growth_runs` runs.
    """

    frames: PositiveInt = 200
    threads: tuple[PositiveInt, ...] = (1, 2)
    growth_frames: tuple[PositiveInt, ...] = ()
    growth_threads: PositiveInt = 1
    growth_rounds: PositiveInt = 3
    growth_runs: PositiveInt = 1
    warmup: NonNegativeInt = 1
    runs: PositiveInt = 3
    rounds: PositiveInt = 10
    starts: PositiveInt = 1
    seed: NonNegativeInt = 0

    def at(self, frames: int) -> LengthProtocol:
        """How one length is measured."""
        if frames == self.frames:
            return LengthProtocol(self.starts, self.rounds, self.runs)
        return LengthProtocol(1, self.growth_rounds, self.growth_runs)


class LayerTiming(_Frozen):
    """One layer of our kernels, alone: raw CPU time of each repeat."""

    name: str
    kernel: str
    macs: PositiveInt
    packed_bytes: NonNegativeInt
    samples_ns: tuple[PositiveInt, ...]


class Layers(_Frozen):
    """Per-layer timings in one instruction set, and its roof: multiply-adds in registers, timed before each repeat."""

    mode: Mode
    isa: str
    bits: PositiveInt
    frames: PositiveInt
    roof_integers: bool = Field(default=False, description="whether the roof is one of integers, else of floats")
    roof_macs: PositiveInt
    roof_samples_ns: tuple[PositiveInt, ...]
    layers: tuple[LayerTiming, ...]


class CoreCycles(_Frozen):
    """Cycles of one iteration on a core, by a scheduling model; `own_model`: not that of another core."""

    core: str
    model: str
    own_model: bool
    cycles: float = Field(gt=0)


class ArmLoop(_Frozen):
    """The inner product of an ARM kernel: multiply-adds and cycles of one iteration."""

    isa: str
    algorithm: str
    source: str
    instructions: PositiveInt
    macs: PositiveInt
    cores: tuple[CoreCycles, ...]


class ArmCycles(_Frozen):
    """Estimated cycles of ARM kernels, and the tools' own words on their versions."""

    compiler: str
    analyser: str
    loops: tuple[ArmLoop, ...]


class BenchRecord(_Frozen):
    """A whole benchmark."""

    schema_version: Literal[1] = 1
    model: str
    weights: str = Field(description="where the weights come from")
    audio: str = Field(description="where calibration and comparison crops come from")
    started_at: datetime
    environment: Environment
    protocol: BenchProtocol
    features_sha256: Sha256
    contenders: tuple[ContenderRecord, ...]
    layers: tuple[Layers, ...] = ()
    arm: ArmCycles | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> BenchRecord:
        names = [contender.name for contender in self.contenders]
        if len(set(names)) != len(names):
            raise ValueError("a contender is listed twice")
        for contender in self.contenders:
            for one in contender.measured:
                length = self.protocol.at(one.frames)
                wanted = [length.runs] * (length.rounds * length.starts)
                if one.failure is None and [len(turn) for turn in one.rounds] != wanted:
                    raise ValueError(f"{contender.name} has not the rounds that the protocol says")
        return self


def read_bench(folder: Path) -> BenchRecord:
    """The `bench.json` of a folder. Raises InputError if it is missing or malformed."""
    return read_json(folder / BENCH_FILE, BenchRecord, what="a benchmark's record")
