"""The LiteRT engine: one .tflite file, run in a process of its own, so that the memory figures are its own.

    python -m device_tests.harness.litert_engine --model FILE --features features.safetensors --out DIR
        [--warmup 2] [--runs 10] [--speed-frames 200] [--threads 1] [--low-memory] [--skip-accuracy]

It speaks the same protocol as the C++ runner for .pte files. `features.safetensors` holds float32 [frames, mel] by
utterance, or samples [S] for a model that takes them; utterances beyond a model's chunk length are embedded in chunks,
as its manifest says. First every utterance is embedded into DIR/embeddings.safetensors (float32 [E], same keys), then
the first
utterance with at least --speed-frames frames, cut to exactly that many, is run --warmup + --runs times and every timed
run goes into DIR/engine.json (`device_tests.records.EngineRecord`). Progress is on stderr, `progress <done> <total>`;
whatever goes wrong is one line on stderr and exit code 2.

Imports are few on purpose: what this process holds is what the report calls the model's memory.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from device_tests.harness.speed import cut_for_speed
from exporters.long_audio import embed_long
from exporters.native import native_path
from exporters.tflite.run import TfliteRunner
from pipeline.errors import InputError, MissingToolError, VoxPressError
from pipeline.features.fbank import samples_of

Features = npt.NDArray[np.float32]


def main(arguments: list[str] | None = None) -> int:
    """Run the engine; returns the exit code, 0 or 2."""
    parser = argparse.ArgumentParser(prog="litert_engine", description="Embed utterances with a .tflite file, timed.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--speed-frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--low-memory", action="store_true")
    parser.add_argument("--skip-accuracy", action="store_true")
    options = parser.parse_args(arguments)
    try:
        for name, least in (("warmup", 0), ("runs", 1), ("speed_frames", 1), ("threads", 1)):
            if getattr(options, name) < least:
                found = str(getattr(options, name))
                raise InputError(f"--{name.replace('_', '-')}", expected=f"at least {least}", found=found)
        _run(options)
    except (VoxPressError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    features = read_features(options.features)
    accuracy = [] if options.skip_accuracy else sorted(features)
    total = len(accuracy) + options.warmup + options.runs
    if not options.model.is_file():
        raise InputError(options.model, expected="a .tflite file", found="no such file")

    before = resident_bytes()
    start = time.perf_counter_ns()
    runner = TfliteRunner(options.model, threads=options.threads, low_memory=options.low_memory)
    load_ns = time.perf_counter_ns() - start
    after_load = resident_bytes()
    manifest = runner.find_manifest()
    speed_rows = options.speed_frames
    if manifest is not None and runner.input == "waveform":
        speed_rows = samples_of(options.speed_frames, manifest.frontend)
    speed_input = cut_for_speed(features, speed_rows)

    first_ns: int | None = None
    done = 0

    def timed(frames: Features) -> tuple[npt.NDArray[np.float32], int]:
        nonlocal first_ns, done
        start = time.perf_counter_ns()
        embedding = embed_long(runner.embed, frames, manifest)
        elapsed = time.perf_counter_ns() - start
        first_ns = elapsed if first_ns is None else first_ns
        done += 1
        print(f"progress {done} {total}", file=sys.stderr, flush=True)
        return embedding, elapsed

    embeddings = {utterance: timed(features[utterance])[0] for utterance in accuracy}
    for _ in range(options.warmup):
        timed(speed_input)
    latency_ns = [timed(speed_input)[1] for _ in range(options.runs)]

    record = {
        "engine": "litert",
        "runtime_version": version("ai-edge-litert"),
        "model": options.model.name,
        "model_bytes": options.model.stat().st_size,
        "threads": options.threads,
        "kernels": kernels_used(),
        "delegates": list(runner.delegates),
        "load_ns": load_ns,
        "first_ns": first_ns,
        "latency_ns": latency_ns,
        "resident_before_bytes": before,
        "resident_after_load_bytes": after_load,
        "resident_after_run_bytes": resident_bytes(),
        "peak_bytes": peak_bytes(),
        "utterances": len(embeddings),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    if embeddings:
        contiguous = {key: np.ascontiguousarray(value, np.float32) for key, value in embeddings.items()}
        _replace(options.out / "embeddings.safetensors", save(contiguous))
    _replace(options.out / "engine.json", json.dumps(record, indent=2).encode() + b"\n")


def read_features(path: Path) -> dict[str, Features]:
    """Float32 [frames, mel], or samples [S], by utterance. Raises InputError naming file and utterance."""
    expected = "a safetensors file of float32 [frames, mel] features or of samples"
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected=expected, found="no such file") from None
    except (OSError, SafetensorError) as error:
        raise InputError(path, expected=expected, found=str(error)) from error
    if not tensors:
        raise InputError(path, expected=expected, found="no utterances")
    for utterance, value in sorted(tensors.items()):
        if value.dtype != np.float32 or value.ndim not in (1, 2) or value.size == 0:
            raise InputError(path, expected=expected, found=f"{value.dtype} {value.shape} for {utterance!r}")
    return dict(tensors)


def kernels_used() -> list[str]:
    """Names of the VoxPress kernels that ran in this process, sorted; none where the delegate is not built."""
    try:
        library = ctypes.CDLL(str(native_path("tflite_delegate")))
    except MissingToolError:
        return []
    library.voxpress_kernels_used.restype = ctypes.c_size_t
    library.voxpress_kernels_used.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    text = ctypes.create_string_buffer(4096)
    library.voxpress_kernels_used(text, len(text))
    return sorted(name for name in text.value.decode().split(",") if name)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The largest resident memory that this process ever had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: expected a VmHWM line, found none")


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
