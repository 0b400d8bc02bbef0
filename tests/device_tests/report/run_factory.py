"""A made-up device run: embeddings of a few speakers, blurred a little more for every lost bit, and drawn timings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from device_tests.records import EngineRecord, Environment, Machine, MachineState, ModelRun, Protocol, RunRecord
from pipeline.corpus.trials import Trial

Embeddings = dict[str, np.ndarray]
BLUR = {"fp32": 0.0, "8bit": 0.01, "4bit": 0.05, "2bit": 0.6, "1bit": 1.5}
BYTES = {"fp32": 26_534_912, "8bit": 6_700_000, "4bit": 3_390_000, "2bit": 1_760_000, "1bit": 950_000}

MACHINE = Machine(
    os="Debian 12",
    kernel="6.1",
    architecture="x86_64",
    cpu_model="A processor",
    cpu_features=("avx2",),
    cores=2,
    memory_bytes=1 << 34,
)
STATE = MachineState(governor=None, clock_hz=(), max_clock_hz=(), temperature_mc={}, load_milli=200)


@dataclass(frozen=True)
class Made:
    run: RunRecord
    folder: Path
    reference: Embeddings
    artifacts: dict[str, Embeddings]
    trials: list[Trial]
    speakers: dict[str, str]


def embeddings(speakers: int, utterances: int, size: int, seed: int) -> tuple[Embeddings, dict[str, str]]:
    rng = np.random.default_rng(seed)
    voices = rng.normal(size=(speakers, size))
    made, who = {}, {}
    for speaker in range(speakers):
        for utterance in range(utterances):
            name = f"s{speaker:02d}/u{utterance}.wav"
            made[name] = (voices[speaker] + 1.3 * rng.normal(size=size)).astype(np.float32)
            who[name] = f"s{speaker:02d}"
    return made, who


def blurred(reference: Embeddings, amount: float, seed: int) -> Embeddings:
    rng = np.random.default_rng(seed)
    return {key: (value + amount * rng.normal(size=value.shape)).astype(np.float32) for key, value in reference.items()}


def all_trials(who: dict[str, str]) -> list[Trial]:
    names = sorted(who)
    return [Trial(who[a] == who[b], a, b) for i, a in enumerate(names) for b in names[i + 1 :]]


def engine_record(file: str, file_bytes: int, latency_ns: Sequence[int], *, utterances: int, base: int) -> EngineRecord:
    pte = file.endswith(".pte")
    stock = "fp32" in file
    return EngineRecord(
        engine="executorch" if pte else "litert",
        runtime_version="1.5.1" if pte else "2.3.0",
        model=file,
        model_bytes=file_bytes,
        model_sha256="0" * 64,
        threads=1,
        kernels=() if stock else ("conv2d_f32_pal_portable", "stats_pool_f32_portable"),
        delegates=(("XnnpackBackend",) if pte else ("XNNPACK",)) if stock else (),
        load_ns=3_000_000,
        first_ns=2 * latency_ns[0],
        latency_ns=tuple(latency_ns),
        resident_before_bytes=base,
        resident_after_load_bytes=base + file_bytes,
        resident_after_run_bytes=base + 2 * file_bytes,
        peak_bytes=base + 3 * file_bytes,
        utterances=utterances,
        resumed=0,
        machine=MACHINE,
        before=STATE,
        after=STATE,
    )


def environment() -> Environment:
    return Environment(
        os="Debian 12",
        kernel="6.1",
        cpu_model="A processor",
        cpu_features=("avx2",),
        cores=2,
        memory_bytes=1 << 34,
        load_average=0.2,
        python="3.11.2",
        voxpress="0.1.0",
        packages={"numpy": "2.4", "executorch": "1.5.1"},
    )


def make_run(
    folder: Path,
    *,
    bits: Sequence[str] = ("fp32", "8bit", "4bit", "2bit", "1bit"),
    formats: Sequence[str] = ("pte", "tflite"),
    control: bool = True,
    protocol: Protocol | None = None,
    speakers: int = 12,
    seed: int = 0,
) -> Made:
    protocol = protocol or Protocol(runs=10, rounds=3)
    rng = np.random.default_rng(seed)
    reference, who = embeddings(speakers, 5, 24, seed)
    artifacts = {label: blurred(reference, BLUR[label], seed + 1) for label in bits}
    (folder / "embeddings").mkdir(parents=True)
    models = []
    for index, label in enumerate(bits):
        for model_format in formats:
            file = f"{label}.{model_format}"
            path = f"embeddings/{file}.safetensors"
            save_file(blurred(artifacts[label], 1e-6, seed + 2), folder / path)
            median = 92e6 * (1 if label == "fp32" else 0.75 + 0.02 * index)
            rounds = tuple(
                engine_record(
                    file,
                    BYTES[label],
                    [int(median * (1 + abs(rng.normal(0, 0.03)))) for _ in range(protocol.runs)],
                    utterances=0,
                    base=50_000_000 if model_format == "tflite" else 9_000_000,
                )
                for _ in range(protocol.rounds)
            )
            accuracy = engine_record(file, BYTES[label], [1], utterances=len(reference), base=1)
            models.append(
                ModelRun(
                    file=file,
                    sha256=f"{index}" * 64,
                    file_bytes=BYTES[label],
                    bits=label,
                    format="pte" if model_format == "pte" else "tflite",
                    lowering="stock" if label == "fp32" else "voxpress",
                    is_control=control and label == "fp32",
                    accuracy=accuracy,
                    rounds=rounds,
                    embeddings=path,
                )
            )
    run = RunRecord(
        device="host",
        device_class="host",
        latency_valid=True,
        started_at=datetime(2025, 1, 2, 3, 4, tzinfo=UTC),
        environment=environment(),
        protocol=protocol,
        features_sha256="a" * 64,
        utterances=len(reference),
        models=tuple(models),
    )
    return Made(run, folder, reference, artifacts, all_trials(who), who)
