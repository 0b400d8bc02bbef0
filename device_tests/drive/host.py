"""Model files run on this machine: embeddings of every utterance once, then rounds of timings, all models in turn.

Every process runs one model, so that its memory figures are that model's. The rounds go over all models before the
next begins, the fp32 control included: a ratio compares timings taken within seconds of each other.

A run that is killed goes on where it was: what a model has embedded and the rounds that were complete are kept, as long
as the model's bytes, the features and the protocol are the same.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from safetensors.numpy import save

from device_tests.drive.engine import EngineCall, EngineCommands, engine_command, format_of, run_engine
from device_tests.drive.environment import environment_notes, host_environment
from device_tests.harness.speed import cut_for_speed
from device_tests.records import (
    EMBEDDINGS_FILE,
    RUN_FILE,
    Embedding,
    EngineRecord,
    Lowering,
    Mode,
    ModelFormat,
    ModelRun,
    Protocol,
    RunRecord,
    read_embeddings,
    read_engine_record,
)
from exporters.model_file import read_model_manifest
from exporters.native import native_path
from pipeline.errors import InputError, MissingToolError, VoxPressError
from pipeline.features.fbank import frames_of
from pipeline.files import folder_written_whole, read_json, sha256_file, write_atomically
from pipeline.progress import Progress, Task

Features = npt.NDArray[np.float32]

_PARTS = ".parts"
_KEY_FILE = "key.json"


@dataclass(frozen=True)
class ModelFile:
    """A model file to run: where it is, and what the bundle it comes from says about it."""

    path: Path
    format: ModelFormat
    bits: str
    lowering: Lowering
    is_control: bool = False
    mode: Mode = "exact"


class _Key(BaseModel):
    """What a part of a run depends on; a part with another key is measured again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, str]
    features_sha256: str
    protocol: Protocol
    engines: dict[str, str]


def run_on_host(
    models: Sequence[ModelFile],
    features: Mapping[str, Features],
    out: Path,
    *,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    engines: EngineCommands | None = None,
) -> RunRecord:
    """Run model files on this machine; writes `out/embeddings/<file>.safetensors`, then `out/run.json`, and returns it.

    `features`: float32 [frames, mel] by utterance. `engines` replaces the engine program of a format.
    Raises InputError for a model that is missing, empty or of another suffix than its format, for two of one name, and
    for features that are empty or not float32 [frames, mel]; VoxPressError with the engine's line if an engine fails.
    """
    protocol = protocol or Protocol()
    hashes = _check_models(models)
    check_features(features)
    programs = {model.format: _Program.find(model.format, engines) for model in models}
    started_at, environment = datetime.now(UTC), host_environment()
    # From here on the folder's old results no longer belong together.
    (out / RUN_FILE).unlink(missing_ok=True)
    parts = _Parts(
        folder=out / _PARTS,
        key=_Key(
            models=hashes,
            features_sha256=features_digest(features),
            protocol=protocol,
            engines={model_format: program.digest for model_format, program in programs.items()},
        ),
        programs=programs,
        utterances=sorted(features),
    )
    parts.write_inputs(features)
    with (progress or _silent()).task("device run (host)", parts.steps(len(models))) as task:
        accuracy = {model.path.name: parts.embed(model, task) for model in models}
        rounds = [parts.round(index, models, task) for index in range(protocol.rounds)]
    notes = environment_notes(environment)
    if parts.kept:
        notes.append(f"taken over from an interrupted run: {', '.join(parts.kept)}")

    embeddings = out / "embeddings"
    with folder_written_whole(embeddings) as folder:
        for model in models:
            name = model.path.name
            shutil.copyfile(parts.accuracy_folder(name) / EMBEDDINGS_FILE, folder / f"{name}.safetensors")
    measured = tuple(
        ModelRun(
            file=model.path.name,
            sha256=hashes[model.path.name],
            file_bytes=model.path.stat().st_size,
            bits=model.bits,
            format=model.format,
            lowering=model.lowering,
            mode=model.mode,
            is_control=model.is_control,
            accuracy=accuracy[model.path.name],
            rounds=tuple(one[model.path.name] for one in rounds),
            embeddings=f"embeddings/{model.path.name}.safetensors",
        )
        for model in models
    )
    notes += [
        f"{model.file} was run by portable code: {', '.join(model.portable_kernels)}"
        for model in measured
        if model.portable_kernels
    ]
    record = RunRecord(
        device="host",
        started_at=started_at,
        environment=environment,
        protocol=protocol,
        features_sha256=parts.key.features_sha256,
        utterances=len(features),
        models=measured,
        notes=tuple(notes),
    )
    write_atomically(out / RUN_FILE, record.model_dump_json(indent=2) + "\n")
    shutil.rmtree(parts.folder, ignore_errors=True)
    return record


def _speed_frames(model: Path, features: Mapping[str, Features]) -> int:
    """The length of the one timed run of an engine that is asked for embeddings only: one that its model takes."""
    shortest = min(features.values(), key=len)
    frames = len(shortest) if shortest.ndim == 2 else frames_of(len(shortest), read_model_manifest(model).frontend)
    return max(1, min(frames, Protocol().speed_frames))


def embed_with_engine(
    model: Path,
    features: Mapping[str, Features],
    *,
    threads: int = 1,
    low_memory: bool = False,
    progress: Progress | None = None,
    engines: EngineCommands | None = None,
) -> tuple[dict[str, Embedding], EngineRecord]:
    """Embeddings float32 [E] of every utterance by the device engine of a model file, and the engine's record.

    features: float32 [frames, mel] by utterance, or samples [S] for a model that takes them. Raises what `run_on_host`
    raises.
    """
    model_format = format_of(model)
    if not all(value.ndim == 1 and value.dtype == np.float32 and value.size for value in features.values()):
        check_features(features)
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        folder = Path(name)
        (folder / "features.safetensors").write_bytes(save(_contiguous(features)))
        call = EngineCall(
            command=_Program.find(model_format, engines).command,
            model=model,
            features=folder / "features.safetensors",
            out=folder / "out",
            # The engine's one timed run must be of a length that the model takes, as the utterances are.
            protocol=Protocol(
                warmup=0,
                runs=1,
                threads=threads,
                low_memory=low_memory,
                speed_frames=_speed_frames(model, features),
            ),
            skip_accuracy=False,
        )
        call.out.mkdir()
        utterances = sorted(features)
        with (progress or _silent()).task(f"embedding, {model_format}", len(utterances) + 1) as task:
            record = _follow(call, utterances, task, len(utterances) + 1)
        return read_embeddings(call.out / EMBEDDINGS_FILE), record


def check_features(features: Mapping[str, Features]) -> None:
    """Raise InputError unless there is at least one utterance and all are float32 [frames, mel] of one mel."""
    if not features:
        raise InputError("features", expected="at least one utterance", found="none")
    mel: int | None = None
    for utterance, value in sorted(features.items()):
        mel = value.shape[1] if mel is None and value.ndim == 2 else mel
        if value.dtype != np.float32 or value.ndim != 2 or value.shape[1] != mel or value.size == 0:
            expected = f"float32 [frames, {mel if mel is not None else 'mel'}]"
            raise InputError(f"features of {utterance!r}", expected=expected, found=f"{value.dtype} {value.shape}")


def features_digest(features: Mapping[str, Features]) -> str:
    """Hex sha256 over names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for utterance, value in sorted(features.items()):
        digest.update(f"{len(utterance.encode())} {utterance} {value.shape[0]} {value.shape[1]}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Program:
    """An engine: its command, and a digest of it and of the native code it runs."""

    command: tuple[str, ...]
    digest: str

    @classmethod
    def find(cls, model_format: ModelFormat, engines: EngineCommands | None) -> _Program:
        given = (engines or {}).get(model_format)
        command = tuple(given or engine_command(model_format))
        code = [Path(word) for word in command if Path(word).is_file()]
        if model_format == "tflite" and not given:
            # Without the delegate the engine still runs files of stock ops only.
            with suppress(MissingToolError):
                code.append(native_path("tflite_delegate"))
        words = [*command, *(sha256_file(path) for path in code)]
        return cls(command, hashlib.sha256("\0".join(words).encode()).hexdigest())


@dataclass
class _Parts:
    """The finished parts of a run, each a folder that is whole or not there, with the key it was measured under."""

    folder: Path
    key: _Key
    programs: Mapping[ModelFormat, _Program]
    utterances: list[str]

    def __post_init__(self) -> None:
        self.kept: list[str] = []
        protocol = self.key.protocol
        self._embed_steps, self._round_steps = len(self.utterances) + 1, protocol.warmup + protocol.runs

    def steps(self, models: int) -> int:
        """Inferences in the whole run."""
        return models * (self._embed_steps + self.key.protocol.rounds * self._round_steps)

    def write_inputs(self, features: Mapping[str, Features]) -> None:
        """The engines' inputs: all features, and a file of only the utterance that is timed, to keep memory clean."""
        write_atomically(self.folder / "features.safetensors", save(_contiguous(features)))
        speed = {"speed": cut_for_speed(features, self.key.protocol.speed_frames)}
        write_atomically(self.folder / "speed.safetensors", save(speed))

    def accuracy_folder(self, file: str) -> Path:
        """Where a model's embeddings are."""
        return self.folder / "accuracy" / file

    def embed(self, model: ModelFile, task: Task) -> EngineRecord:
        """The accuracy pass of one model."""
        name = model.path.name
        # Timings are another part's business, so a changed number of rounds or runs leaves embeddings as they are.
        once = self.key.protocol.model_copy(update={"warmup": 0, "runs": 1, "rounds": 1})
        key = self.key.model_copy(
            update={
                "models": {name: self.key.models[name]},
                "protocol": once,
                "engines": {model.format: self.key.engines[model.format]},
            }
        )
        folder = self.accuracy_folder(name)
        if _has_key(folder, key):
            self.kept.append(f"embeddings of {name}")
            task.advance(self._embed_steps)
        else:
            with folder_written_whole(folder) as partial:
                task.note(f"embedding with {name}")
                self._engine(model, partial, task, protocol=once)
                write_atomically(partial / _KEY_FILE, key.model_dump_json())
        return read_engine_record(folder)

    def round(self, index: int, models: Sequence[ModelFile], task: Task) -> dict[str, EngineRecord]:
        """One round of timings: every model once. The order turns with the rounds, so that no place is favoured."""
        folder = self.folder / "rounds" / str(index)
        key = self.key.model_copy(update={"protocol": self.key.protocol.model_copy(update={"rounds": 1})})
        if _has_key(folder, key):
            self.kept.append(f"round {index + 1}")
            task.advance(len(models) * self._round_steps)
        else:
            turn = index % len(models)
            with folder_written_whole(folder) as partial:
                for model in (*models[turn:], *models[:turn]):
                    task.note(f"timing {model.path.name}")
                    self._engine(model, partial / model.path.name, task, protocol=self.key.protocol, speed=True)
                write_atomically(partial / _KEY_FILE, key.model_dump_json())
        return {model.path.name: read_engine_record(folder / model.path.name) for model in models}

    def _engine(self, model: ModelFile, out: Path, task: Task, *, protocol: Protocol, speed: bool = False) -> None:
        out.mkdir(exist_ok=True)
        call = EngineCall(
            command=self.programs[model.format].command,
            model=model.path,
            features=self.folder / ("speed.safetensors" if speed else "features.safetensors"),
            out=out,
            protocol=protocol,
            skip_accuracy=speed,
        )
        _follow(call, self.utterances, task, self._round_steps if speed else self._embed_steps)


def _follow(call: EngineCall, utterances: Sequence[str], task: Task, steps: int) -> EngineRecord:
    """Run an engine as `steps` steps of a task, whatever the engine itself counts."""
    reached = 0

    def on_step(done: int) -> None:
        nonlocal reached
        task.advance(max(0, min(done, steps) - reached))
        reached = max(reached, min(done, steps))

    record = run_engine(call, utterances, on_step)
    task.advance(steps - reached)
    return record


def _silent() -> Progress:
    return Progress(Console(file=sys.stderr, quiet=True))


def _has_key(folder: Path, key: _Key) -> bool:
    if not (folder / _KEY_FILE).is_file():
        return False
    try:
        return read_json(folder / _KEY_FILE, _Key, what="the key of a part of a run") == key
    except VoxPressError:
        return False


def _check_models(models: Sequence[ModelFile]) -> dict[str, str]:
    """Sha256 by file name, of models that are there, not empty, of the right suffix and of different names."""
    if not models:
        raise InputError("device run", expected="at least one model file", found="none")
    hashes: dict[str, str] = {}
    for model in models:
        if format_of(model.path) != model.format:
            raise InputError(model.path, expected=f"a .{model.format} file", found=f"suffix {model.path.suffix!r}")
        if model.path.stat().st_size == 0:
            raise InputError(model.path, expected=f"a .{model.format} file", found="an empty file")
        if model.path.name in hashes:
            raise InputError(model.path, expected="file names that differ", found=f"{model.path.name} twice")
        hashes[model.path.name] = sha256_file(model.path)
    return hashes


def _contiguous(features: Mapping[str, Features]) -> dict[str, Features]:
    # safetensors writes the bytes of a view's base, not of the view.
    return {utterance: np.ascontiguousarray(value) for utterance, value in features.items()}
