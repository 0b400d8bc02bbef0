"""A whole benchmark: contenders are built, started in processes of their own, and measured in turns.

A run that is killed goes on where it was: files that are built stay built, and the rounds that were complete are kept
as long as files, crops and protocol are the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save

from device_tests.bench.arm_cycles import estimate_arm_cycles
from device_tests.bench.build import Builder, Built, build_all
from device_tests.bench.contenders import BenchMode, Contender, our_contenders, peer_contenders
from device_tests.bench.layers import time_layers
from device_tests.bench.made_by import RUNNING, native_sha256
from device_tests.bench.process import Worker, cores_for
from device_tests.bench.records import (
    BENCH_FILE,
    ArmCycles,
    BenchProtocol,
    BenchRecord,
    ContenderRecord,
    Layers,
    Measured,
    Memory,
    ModelFileRecord,
    Start,
)
from device_tests.bench.subject import Subject, features_digest, make_subject
from device_tests.bench.turns import Turns, play_round
from device_tests.drive.build import host_build
from device_tests.drive.environment import environment_notes, host_environment
from device_tests.records import portable_kernels
from exporters.exported import Format
from exporters.peers.catalogue import INSTALL_HINT, Peer, installed
from pipeline.artifact.store import read_artifact
from pipeline.errors import InputError, MissingToolError, VerificationError, VoxPressError
from pipeline.features.fbank import max_frames
from pipeline.files import read_json, sha256_file, write_atomically
from pipeline.progress import Progress

Floats = npt.NDArray[np.float32]

_PARTS = ".parts"


@dataclass(frozen=True)
class BenchRequest:
    """What is to be compared, and how."""

    model: str
    peers: Sequence[Peer]
    modes: Sequence[BenchMode]
    formats: Sequence[Format]
    bits: Sequence[int] = (8, 4, 2, 1)
    growth_seconds: Sequence[float] = ()
    max_seconds: float = 10.0  # that a .pte plans its memory for, if no longer length is measured
    layers: bool = False
    arm_cycles: bool = False
    audio: Path | None = None
    protocol: BenchProtocol = field(default_factory=BenchProtocol)


@dataclass(frozen=True)
class _Bench:
    """A benchmark whose files are there."""

    subject: Subject
    contenders: Sequence[Contender]
    built: Mapping[tuple[str, int], Built]
    protocol: BenchProtocol
    max_seconds: float


def prepare_bench(request: BenchRequest, out: Path, progress: Progress) -> list[str]:
    """Build every file and measure nothing; returns a line for each contender that cannot be built."""
    bench = _prepare(request, out, progress)
    return [
        f"{contender.title}: {failure}"
        for contender in bench.contenders
        if (failure := bench.built[contender.name, bench.protocol.frames].failure) is not None
    ]


def run_bench(request: BenchRequest, out: Path, progress: Progress) -> BenchRecord:
    """Measure and write `out/bench.json`; returns it.

    A peer that is not installed, cannot be built or fails is a row with the reason. Raises InputError for what cannot
    be compared, VerificationError, once everything is written, if one of our own files failed.
    """
    for threads in request.protocol.threads:
        cores_for(threads)
    bench = _prepare(request, out, progress)
    started_at, environment = datetime.now(UTC), host_environment()
    notes = environment_notes(environment)
    session = _Session(bench, out / _PARTS, progress)
    with session.crops_on_disk():
        protocol = bench.protocol
        session.measure(protocol.frames, protocol.threads, with_cosines=True)
        for frames in protocol.growth_frames:
            session.measure(frames, (protocol.growth_threads,), with_cosines=False)
    layers: list[Layers] = []
    if request.layers:
        pressed = [read_artifact(folder).header for folder in bench.subject.pressed.values()]
        widths = sorted({node.bits for header in pressed for node in header.layers if node.bits < 32}, reverse=True)
        modes = list(dict.fromkeys(mode.mode for mode in request.modes))
        with progress.task("layers", len(widths) * len(modes)) as task:
            for mode, bits in itertools.product(modes, widths):
                header = bench.subject.reference.header
                layers.append(time_layers(header, mode=mode, bits=bits, frames=protocol.frames))
                task.advance()
    arm = _arm_cycles(notes) if request.arm_cycles else None
    if session.taken_over:
        notes.append(f"{session.taken_over} complete rounds were taken over from an interrupted run")
    record = BenchRecord(
        model=bench.subject.name,
        weights=bench.subject.weights,
        audio=bench.subject.audio,
        started_at=started_at,
        environment=environment,
        protocol=protocol,
        features_sha256=features_digest(bench.subject.compared_at(protocol.frames)),
        contenders=tuple(_row(bench, session, contender) for contender in bench.contenders),
        layers=tuple(layers),
        arm=arm,
        notes=(*notes, *_kernel_notes(session)),
    )
    write_atomically(out / BENCH_FILE, record.model_dump_json(indent=1) + "\n")
    shutil.rmtree(out / _PARTS, ignore_errors=True)
    return record


def check_ours(record: BenchRecord) -> None:
    """Raise VerificationError if one of our own files could not be measured."""
    for contender in record.contenders:
        failures = [one.failure for one in contender.measured if one.failure] + [contender.failure or ""]
        if contender.kind == "voxpress" and any(failures):
            raise VerificationError(f"{contender.title}: {next(filter(None, failures))}")


def _arm_cycles(notes: list[str]) -> ArmCycles | None:
    """Estimated cycles of ARM kernels; None, with the reason in `notes`, where the tools are missing."""
    try:
        return estimate_arm_cycles()
    except MissingToolError as missing:
        notes.append(f"cycles of ARM kernels were not estimated: {missing}")
        return None


def _prepare(request: BenchRequest, out: Path, progress: Progress) -> _Bench:
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    protocol = request.protocol
    subject = make_subject(
        request.model,
        bits=request.bits,
        audio=request.audio,
        frames=protocol.frames,
        seed=protocol.seed,
        work=work,
        progress=progress,
    )
    spec = subject.reference.header.frontend
    growth = tuple(max_frames(seconds, spec) for seconds in request.growth_seconds)
    if any(frames < max_frames(spec.min_seconds, spec) for frames in (*growth, protocol.frames)):
        raise InputError("--seconds and --frames", expected=f"at least {spec.min_seconds:g} s", found="less")
    protocol = protocol.model_copy(update={"growth_frames": growth, "growth_threads": protocol.threads[0]})
    longest = max(protocol.frames, *growth, 0)
    max_seconds = max(request.max_seconds, longest * spec.frame_shift_ms / 1000 + 1.0)
    contenders = [
        *our_contenders(list(subject.pressed), request.modes, request.formats),
        *peer_contenders(request.peers),
    ]
    missing = sorted({package for peer in request.peers for package in peer.missing_packages()})
    if missing:
        progress.say(
            f"not installed: {', '.join(missing)}; the peers that need them are rows without figures "
            f"until `{INSTALL_HINT}`"
        )
    builder = Builder(subject, work, max_seconds=max_seconds, progress=progress)
    lengths = list(dict.fromkeys((protocol.frames, *growth)))
    return _Bench(subject, contenders, build_all(builder, contenders, lengths, progress), protocol, max_seconds)


def worker_command(contender: Contender, model: Path, features: Path, *, threads: int, frames: int) -> list[str]:
    """The process that runs a contender's file. Raises MissingToolError if it is not built."""
    words = ["--model", str(model), "--features", str(features)]
    words += ["--threads", str(threads), "--speed-frames", str(frames)]
    words += ["--low-memory"] if contender.low_memory else []
    if contender.runtime in ("executorch", "litert"):
        build = host_build("pte" if contender.runtime == "executorch" else "tflite")
        return [str(build.runner), "--serve", *words, *build.options(str)]
    engine = "mnn-few-bits" if contender.kind == "weight-only" and contender.runtime == "mnn" else contender.runtime
    return [sys.executable, "-m", "device_tests.bench.worker", "--engine", engine, *words]


class _Part(BaseModel):
    """What is known of one section (a length, the contenders' processes of one start) so far."""

    model_config = ConfigDict(extra="forbid")

    key: str
    rounds_done: int = 0
    done: bool = False
    samples: dict[str, list[tuple[int, ...]]] = {}
    failures: dict[str, str] = {}
    starts: dict[str, list[Start]] = {}
    memory: dict[str, list[Memory]] = {}
    cosines: dict[str, dict[str, float]] = {}


class _Session:
    """The measurements of a benchmark, section by section, kept on disk after every round."""

    def __init__(self, bench: _Bench, folder: Path, progress: Progress) -> None:
        self.bench, self.folder, self.progress = bench, folder, progress
        self.parts: dict[tuple[int, int], _Part] = {}  # by frames and start
        self.taken_over = 0

    @contextmanager
    def crops_on_disk(self) -> Iterator[None]:
        """The crops of every length, where the processes read them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for frames in dict.fromkeys((self.bench.protocol.frames, *self.bench.protocol.growth_frames)):
            write_atomically(self._features(frames), save(self.bench.subject.compared_at(frames)))
        yield

    def measure(self, frames: int, threads: Sequence[int], *, with_cosines: bool) -> None:
        """All contenders at one length, each with every number of threads, in turns."""
        for start in range(self.bench.protocol.at(frames).starts):
            path = self.folder / f"{frames}-{start}.json"
            part = self._resumed(path, self._key(frames, threads))
            self.taken_over += part.rounds_done
            self.parts[frames, start] = part
            if not part.done:
                self._play(part, path, frames, threads, start, with_cosines=with_cosines and start == 0)

    def _play(
        self, part: _Part, path: Path, frames: int, threads: Sequence[int], start: int, *, with_cosines: bool
    ) -> None:
        protocol, length = self.bench.protocol, self.bench.protocol.at(frames)
        wanted = {
            _place(contender, count): (contender, count)
            for contender in self.bench.contenders
            if self.bench.built[contender.name, frames].files
            for count in threads
        }
        workers: dict[str, Worker] = {}
        turns = Turns(part.samples, part.failures)
        try:
            with self.progress.task(f"start ({frames} frames)", len(wanted)) as task:
                for place, (contender, count) in wanted.items():
                    task.note(place)
                    if place not in part.failures:
                        try:
                            workers[place] = self._start(contender, frames, count)
                            part.starts.setdefault(place, []).append(workers[place].start)
                        except VoxPressError as error:
                            part.failures[place] = str(error)
                    task.advance()
            left = length.rounds - part.rounds_done
            with self.progress.task(f"measure ({frames} frames)", left * len(workers)) as task:
                for index in range(part.rounds_done, length.rounds):

                    def on_turn(place: str) -> None:
                        task.note(place)
                        task.advance()

                    play_round(
                        workers,
                        turns,
                        round_index=start * length.rounds + index,
                        seed=protocol.seed,
                        warmup=protocol.warmup,
                        runs=length.runs,
                        on_turn=on_turn,
                    )
                    part.rounds_done = index + 1
                    write_atomically(path, part.model_dump_json())
            reference = self.bench.subject.reference_embeddings(frames) if with_cosines else {}
            for place, worker in workers.items():
                self._finish(part, place, worker, reference, first=wanted[place][1] == threads[0])
            part.done = True
            write_atomically(path, part.model_dump_json())
        finally:
            for worker in workers.values():
                worker.kill()

    def _finish(self, part: _Part, place: str, worker: Worker, reference: Mapping[str, Floats], *, first: bool) -> None:
        if place in part.failures:
            return
        try:
            # Memory before the embeddings: they are for one length, and what is asked for them is not the model's.
            part.memory.setdefault(place, []).append(worker.memory())
            if reference and first:
                part.cosines[place] = cosines(worker.embed(), reference)
        except VoxPressError as error:
            part.failures[place] = str(error)

    def _start(self, contender: Contender, frames: int, threads: int) -> Worker:
        model = self.bench.built[contender.name, frames].files[0]
        command = worker_command(contender, model, self._features(frames), threads=threads, frames=frames)
        return Worker(command, threads=threads)

    def _features(self, frames: int) -> Path:
        return self.folder / f"features-{frames}.safetensors"

    def _key(self, frames: int, threads: Sequence[int]) -> str:
        """A hash of all that samples depend on."""
        files = {
            contender.name: [sha256_file(path) for path in self.bench.built[contender.name, frames].files]
            for contender in self.bench.contenders
        }
        features = features_digest(self.bench.subject.compared_at(frames))
        what = [files, features, list(threads), self.bench.protocol.model_dump(mode="json"), self._runners()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _runners(self) -> list[str]:
        """Hashes and versions of what runs the files."""
        packages = {package for one in self.bench.contenders if one.peer is not None for package in one.peer.packages}
        return [native_sha256(RUNNING), *(f"{name} {version(name)}" for name in sorted(packages) if installed(name))]

    @staticmethod
    def _resumed(path: Path, key: str) -> _Part:
        try:
            part = read_json(path, _Part, what="rounds of an interrupted benchmark")
        except InputError:
            return _Part(key=key)  # none, or damaged by what interrupted it
        return part if part.key == key else _Part(key=key)


def cosines(embeddings: Mapping[str, Sequence[float]], reference: Mapping[str, Floats]) -> dict[str, float]:
    """Cosine of each embedding to the reference's, by utterance.

    Raises VoxPressError if utterances or sizes differ.
    """
    if set(embeddings) != set(reference):
        raise VoxPressError(f"expected embeddings of {len(reference)} utterances, found {len(embeddings)}")
    result = {}
    for name, wanted in reference.items():
        given = np.asarray(embeddings[name], np.float64)
        if given.shape != wanted.shape:
            raise VoxPressError(f"expected embeddings of {wanted.size} values, found {given.size}")
        norms = float(np.linalg.norm(given) * np.linalg.norm(wanted.astype(np.float64)))
        result[name] = float(given @ wanted.astype(np.float64)) / norms if norms > 0 else 0.0
    return result


def _row(bench: _Bench, session: _Session, contender: Contender) -> ContenderRecord:
    built = bench.built[contender.name, bench.protocol.frames]
    first = session.parts[bench.protocol.frames, 0]
    return ContenderRecord(
        name=contender.name,
        title=contender.title,
        kind=contender.kind,
        runtime=contender.runtime,
        bits=contender.bits,
        mode=None if contender.mode is None else contender.mode.name,
        files=tuple(
            ModelFileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path)) for path in built.files
        ),
        cosines=first.cosines.get(_place(contender, bench.protocol.threads[0]), {}),
        measured=() if built.failure is not None else tuple(_measured(bench, session, contender)),
        failure=built.failure,
    )


def _measured(bench: _Bench, session: _Session, contender: Contender) -> Iterator[Measured]:
    protocol = bench.protocol
    sections = [(protocol.frames, threads) for threads in protocol.threads]
    sections += [(frames, protocol.growth_threads) for frames in protocol.growth_frames if frames != protocol.frames]
    for frames, threads in sections:
        place = _place(contender, threads)
        parts = [session.parts[frames, start] for start in range(protocol.at(frames).starts)]
        failures = [part.failures[place] for part in parts if place in part.failures]
        built = bench.built[contender.name, frames]
        yield Measured(
            frames=frames,
            threads=threads,
            starts=tuple(start for part in parts for start in part.starts.get(place, [])),
            memory=tuple(one for part in parts for one in part.memory.get(place, [])),
            rounds=tuple(turn for part in parts for turn in part.samples.get(place, [])),
            failure=built.failure or (failures[0] if failures else None),
        )


def _kernel_notes(session: _Session) -> list[str]:
    """Our files that were run by portable code, for want of kernels for this machine."""
    notes = []
    for (frames, _), part in session.parts.items():
        for place, memories in part.memory.items():
            names = portable_kernels(sorted({name for one in memories for name in one.kernels}))
            if names:
                notes.append(f"{place} at {frames} frames was run by portable code: {', '.join(names)}")
    return notes


def _place(contender: Contender, threads: int) -> str:
    return f"{contender.name} ×{threads}"
