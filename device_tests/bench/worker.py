"""One contender in a process of its own: loads a model, then answers requests, so that contenders can take turns.

    python -m device_tests.bench.worker --engine onnxruntime --model FILE --features FILE --threads 1 --speed-frames 200

It speaks what the C++ runner speaks under `--serve` (device_tests/harness/driver.h): a line of JSON once the model is
loaded and has run for the first time, then one for each request read from stdin, `run WARMUP RUNS`, `embed` or
`memory`. `--features` is a safetensors file of float32 [frames, mel] by utterance. What goes wrong is one line on
stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from device_tests.bench.engines import ENGINES, Engine
from device_tests.drive.inputs import cut_for_speed
from pipeline.errors import InputError, VoxPressError


def main(arguments: list[str] | None = None) -> int:
    """Serve until stdin ends; returns the exit code."""
    parser = argparse.ArgumentParser(prog="worker", description="Answer requests with a model.")
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--speed-frames", type=int, required=True)
    parser.add_argument("--low-memory", action="store_true", help="keep the weights of our ops packed")
    options = parser.parse_args(arguments)
    answers = _take_stdout()
    try:
        _serve(options, answers)
    except VoxPressError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    except Exception as error:  # a runtime's own word on why it does not run the model
        print(f"{options.model.name}: {' '.join(f'{type(error).__name__}: {error}'.split())[:400]}", file=sys.stderr)
        return VoxPressError.exit_code
    return 0


def _take_stdout() -> TextIO:
    """The stream of answers; what runtimes print on stdout goes to stderr from now on."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _serve(options: argparse.Namespace, answers: TextIO) -> None:
    features = read_features(options.features)
    speed_input = cut_for_speed(features, options.speed_frames)
    engine = ENGINES[options.engine](low_memory=options.low_memory)

    def answer(members: dict[str, Any]) -> None:
        answers.write(json.dumps(members) + "\n")
        answers.flush()

    before = resident_bytes()
    start = time.perf_counter_ns()
    engine.load(options.model, options.threads, options.speed_frames)
    load_ns = time.perf_counter_ns() - start
    after_load = resident_bytes()
    start = time.perf_counter_ns()
    engine.embed(speed_input)
    first_ns = time.perf_counter_ns() - start
    answer(
        {
            "engine": options.engine,
            "runtime_version": engine.runtime_version,
            "threads": options.threads,
            "kernels": engine.kernels(),
            "delegates": engine.delegates(),
            "load_ns": load_ns,
            "first_ns": first_ns,
            "resident_before_bytes": before,
            "resident_after_load_bytes": after_load,
            "resident_after_first_bytes": resident_bytes(),
        }
    )
    for line in sys.stdin:
        answer(_answer(line.split(), engine, features, speed_input))


def _answer(words: list[str], engine: Engine, features: dict[str, Any], speed_input: Any) -> dict[str, Any]:
    if words == ["embed"]:
        return {"embeddings": {name: engine.embed(value).tolist() for name, value in features.items()}}
    if words == ["memory"]:
        return {"resident_bytes": resident_bytes(), "peak_bytes": peak_bytes(), "kernels": engine.kernels()}
    if len(words) == 3 and words[0] == "run" and words[1].isdecimal() and words[2].isdecimal():
        for _ in range(int(words[1])):
            engine.embed(speed_input)
        latency_ns = []
        for _ in range(int(words[2])):
            start = time.perf_counter_ns()
            engine.embed(speed_input)
            latency_ns.append(time.perf_counter_ns() - start)
        return {"latency_ns": latency_ns}
    raise InputError("request", expected="run WARMUP RUNS, embed or memory", found=" ".join(words))


def read_features(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Float32 [frames, mel] by utterance. Raises InputError naming file and utterance."""
    expected = "a safetensors file of float32 [frames, mel] features"
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected=expected, found="no such file") from None
    except (OSError, SafetensorError) as error:
        raise InputError(path, expected=expected, found=str(error)) from error
    if not tensors:
        raise InputError(path, expected=expected, found="no utterances")
    for utterance, value in sorted(tensors.items()):
        if value.dtype != np.float32 or value.ndim != 2 or value.size == 0:
            raise InputError(path, expected=expected, found=f"{value.dtype} {value.shape} for {utterance!r}")
    return dict(tensors)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The largest resident memory that this process ever had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: expected a VmHWM line, found none")


if __name__ == "__main__":
    sys.exit(main())
