"""Model files run on a device: embeddings of every utterance once, then rounds of timings, all models in turn.

Every process runs one model, so that its memory figures are that model's. The rounds go over all models before the
next begins, the fp32 control included: a ratio compares timings taken within seconds of each other.

A run that is killed goes on where it was: embeddings that are made and rounds that are complete are kept, as
long as the model's bytes, the features, the engines and the protocol are the same.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from safetensors.numpy import save

from calibration.ranges import Mode
from device_tests.drive.device import Device, EngineCall, Session
from device_tests.drive.engine import format_of, run_engine
from device_tests.drive.environment import environment_notes, environment_of
from device_tests.drive.inputs import (
    Waveform,
    check_features,
    check_inputs,
    check_samples,
    contiguous,
    features_digest,
    input_file,
    write_inputs,
)
from device_tests.records import (
    EMBEDDINGS_FILE,
    RUN_FILE,
    BundleIdentity,
    Embedding,
    EngineRecord,
    ModelFormat,
    ModelRun,
    Protocol,
    RunRecord,
    read_embeddings,
    read_engine_record,
)
from exporters.manifest import Lowering, ModelInput
from exporters.model_file import read_model_manifest
from pipeline.errors import InputError, VoxPressError
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
    input: ModelInput = "fbank"
    weights: Path | None = None  # the .ptd that a .pte's weights lie in, beside it

    @property
    def files(self) -> tuple[Path, ...]:
        """The model, and its weights if they are a file of their own."""
        return (self.path,) if self.weights is None else (self.path, self.weights)

    @property
    def total_bytes(self) -> int:
        """Bytes of these files."""
        return sum(path.stat().st_size for path in self.files)


class _Key(BaseModel):
    """What a part of a run depends on; a part with another key is measured again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, str]
    weights: dict[str, str]
    features_sha256: str
    samples_sha256: str | None
    protocol: Protocol
    engines: dict[str, str]


def run_on_device(
    device: Device,
    models: Sequence[ModelFile],
    features: Mapping[str, Features],
    out: Path,
    *,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    bundle: BundleIdentity | None = None,
    waveform: Waveform | None = None,
) -> RunRecord:
    """Run model files on a device; writes `out/embeddings/<file>.safetensors`, then `out/run.json`, and returns it.

    `features`: float32 [frames, mel] by utterance. `waveform`: the same utterances' samples, where models take these.
    Raises InputError for a model that is missing, empty or of another suffix than its format, for two of one name, and
    for inputs that are missing, empty or of other shapes; VoxPressError with the engine's line if an engine fails.
    """
    protocol = protocol or Protocol()
    hashes = _check_models(models)
    weights = {model.path.name: sha256_file(model.weights) for model in models if model.weights is not None}
    check_inputs(features, waveform, {model.input for model in models})
    started_at = datetime.now(UTC)
    with device.open() as session:
        engines = {model.format: session.engine_digest(model.format) for model in models}
        parts = _Parts(
            folder=out / _PARTS,
            key=_Key(
                models=hashes,
                weights=weights,
                features_sha256=features_digest(features),
                samples_sha256=None if waveform is None else features_digest(waveform.samples),
                protocol=protocol,
                engines=engines,
            ),
            session=session,
            utterances=sorted(features),
        )
        write_inputs(parts.folder, features, waveform, speed_frames=protocol.speed_frames)
        with (progress or _silent()).task(f"device run ({device.name})", parts.steps(len(models))) as task:
            accuracy = {model.path.name: parts.embed(model, task) for model in models}
            rounds = [parts.round(index, models, task) for index in range(protocol.rounds)]
    environment = environment_of(next(iter(accuracy.values())))
    notes = [*parts.notes, *environment_notes(environment)]
    if not device.latency_valid:
        notes.append("timings on this device mean nothing by design and are not judged")
    if parts.kept:
        notes.append(f"taken over from an interrupted run: {', '.join(parts.kept)}")

    embeddings = out / "embeddings"
    with folder_written_whole(embeddings) as folder:
        for model in models:
            name = model.path.name
            shutil.copyfile(parts.accuracy_folder(name) / EMBEDDINGS_FILE, folder / f"{name}.safetensors")
        # From here on the folder's old results, which nothing touched so far, no longer belong together.
        (out / RUN_FILE).unlink(missing_ok=True)
    measured = tuple(
        ModelRun(
            file=model.path.name,
            sha256=hashes[model.path.name],
            file_bytes=model.total_bytes,
            weights_sha256=weights.get(model.path.name),
            bits=model.bits,
            format=model.format,
            lowering=model.lowering,
            mode=model.mode,
            input=model.input,
            is_control=model.is_control,
            accuracy=accuracy[model.path.name],
            rounds=tuple(one[model.path.name] for one in rounds),
            embeddings=f"embeddings/{model.path.name}.safetensors",
        )
        for model in models
    )
    notes += [
        f"{model.path.name}: its size is with {model.weights.name}, which holds its weights"
        for model in models
        if model.weights is not None
    ]
    notes += [
        f"{model.file} was run by portable code: {', '.join(model.portable_kernels)}"
        for model in measured
        if model.portable_kernels
    ]
    record = RunRecord(
        device=device.name,
        device_class=device.device_class,
        latency_valid=device.latency_valid,
        bundle=bundle,
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
    device: Device,
    model: Path,
    features: Mapping[str, Features],
    *,
    threads: int = 1,
    low_memory: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Embedding], EngineRecord]:
    """Embeddings float32 [E] of every utterance by a device's engine of a model file, and the engine's record.

    features: float32 [frames, mel] by utterance, or samples [S] for a model that takes them.
    Raises what `run_on_device` raises.
    """
    model_format = format_of(model)
    if features and all(value.ndim == 1 for value in features.values()):
        check_samples(features)
    else:
        check_features(features)
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name, device.open() as session:
        folder = Path(name)
        (folder / "features.safetensors").write_bytes(save(contiguous(features)))
        call = EngineCall(
            model=model,
            format=model_format,
            sha256=sha256_file(model),
            features=folder / "features.safetensors",
            out=folder,
            # The engine's one timed run must be of a length that the model takes, as the utterances are.
            protocol=Protocol(
                warmup=0,
                runs=1,
                rounds=1,
                threads=threads,
                low_memory=low_memory,
                speed_frames=_speed_frames(model, features),
            ),
            skip_accuracy=False,
        )
        utterances = sorted(features)
        with (progress or _silent()).task(f"embedding, {model.name}", len(utterances) + 1) as task:
            record = _follow(session, call, utterances, task, len(utterances) + 1)
        return read_embeddings(call.out / EMBEDDINGS_FILE), record


@dataclass
class _Parts:
    """The finished parts of a run, each a folder that is whole or not there, with the key it was measured under."""

    folder: Path
    key: _Key
    session: Session
    utterances: list[str]

    def __post_init__(self) -> None:
        self.kept: list[str] = []
        self.notes: list[str] = []
        protocol = self.key.protocol
        self._embed_steps, self._round_steps = len(self.utterances) + 1, protocol.warmup + protocol.runs

    def steps(self, models: int) -> int:
        """Inferences in the whole run."""
        return models * (self._embed_steps + self.key.protocol.rounds * self._round_steps)

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
                "weights": {file: sha256 for file, sha256 in self.key.weights.items() if file == name},
                "protocol": once,
                "engines": {model.format: self.key.engines[model.format]},
            }
        )
        folder = self.accuracy_folder(name)
        if _has_key(folder, key):
            self.kept.append(f"embeddings of {name}")
            task.advance(self._embed_steps)
        else:
            # Kept until it is whole: a killed engine left a journal there, from which the next one goes on.
            working = self.folder / "working" / name
            if not _has_key(working, key):
                shutil.rmtree(working, ignore_errors=True)
                write_atomically(working / _KEY_FILE, key.model_dump_json())
            task.note(f"embedding with {name}")
            record = self._engine(model, working, task, protocol=once)
            if record.resumed:
                self.kept.append(f"{record.resumed} embeddings of {name}")
            with folder_written_whole(folder) as partial:
                shutil.copytree(working, partial, dirs_exist_ok=True)
            shutil.rmtree(working, ignore_errors=True)
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
                    self.notes += [note for note in self.session.ready() if note not in self.notes]
                    task.note(f"timing {model.path.name}")
                    self._engine(model, partial / model.path.name, task, protocol=self.key.protocol, speed=True)
                write_atomically(partial / _KEY_FILE, key.model_dump_json())
        return {model.path.name: read_engine_record(folder / model.path.name) for model in models}

    def _engine(
        self, model: ModelFile, out: Path, task: Task, *, protocol: Protocol, speed: bool = False
    ) -> EngineRecord:
        out.mkdir(exist_ok=True)
        call = EngineCall(
            model=model.path,
            format=model.format,
            sha256=self.key.models[model.path.name],
            features=self.folder / input_file(model.input, speed=speed),
            out=out,
            protocol=protocol,
            skip_accuracy=speed,
            weights=model.weights,
        )
        return _follow(self.session, call, self.utterances, task, self._round_steps if speed else self._embed_steps)


def _follow(session: Session, call: EngineCall, utterances: Sequence[str], task: Task, steps: int) -> EngineRecord:
    """Run an engine as `steps` steps of a task, whatever the engine itself counts."""
    reached = 0

    def on_step(done: int) -> None:
        nonlocal reached
        task.advance(max(0, min(done, steps) - reached))
        reached = max(reached, min(done, steps))

    record = run_engine(session, call, utterances, on_step)
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
        if model.weights is not None and not model.weights.is_file():
            raise InputError(model.path, expected=f"its weights in {model.weights}", found="no such file")
        if model.path.name in hashes:
            raise InputError(model.path, expected="file names that differ", found=f"{model.path.name} twice")
        hashes[model.path.name] = sha256_file(model.path)
    return hashes
