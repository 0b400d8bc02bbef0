"""Inference takes no memory: scratch is planned, kept, and not asked for anew at each call of an op."""

from __future__ import annotations

import functools
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from safetensors.numpy import save_file

from device_tests.drive.build import host_build
from exporters.exported import Format
from exporters.pte.emit import emit_pte
from exporters.tflite.emit import emit_tflite
from tests.exporters.test_networks import pressed
from tests.factories import noise_program

pytestmark = pytest.mark.slow

FRAMES, RUNS = 200, 20


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("counter") / "count_allocations.so"
    source = Path(__file__).with_name("count_allocations.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-o", library], check=True)
    return library


@contextmanager
def served(model: Path, folder: Path, counter: Path, *words: str) -> Iterator[tuple[IO[str], IO[str], Path]]:
    """A runner's process, ready: where it reads, where it answers, and the file with the count."""
    save_file({"u": np.random.default_rng(0).normal(size=(FRAMES, 80)).astype(np.float32)}, folder / "u.safetensors")
    (folder / "count").write_bytes(bytes(8))
    build = host_build("pte" if model.suffix == ".pte" else "tflite")
    command = [str(build.runner), "--serve", "--model", str(model), "--features", str(folder / "u.safetensors")]
    command += ["--speed-frames", str(FRAMES), *words, *build.options(str)]
    variables = {**os.environ, "LD_PRELOAD": str(counter), "COUNT_ALLOCATIONS": str(folder / "count")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["kernels"]
            yield process.stdin, process.stdout, folder / "count"
        finally:
            process.stdin.close()


def allocations(requests: IO[str], answers: IO[str], count: Path, runs: int) -> int:
    """How often memory was asked for while a request of so many runs was answered."""
    (before,) = struct.unpack("q", count.read_bytes())
    requests.write(f"run 0 {runs}\n")
    requests.flush()
    assert len(json.loads(answers.readline())["latency_ns"]) == runs
    (after,) = struct.unpack("q", count.read_bytes())
    return int(after - before)


@functools.cache
def model_file(name: str, file_format: Format, mode: str) -> bytes:
    artifact = pressed(name, 1)
    fast = noise_program(artifact) if mode == "fast" else None
    if file_format == "pte":
        return emit_pte(artifact, lowering="voxpress", max_seconds=4.0, fast=fast)
    return emit_tflite(artifact, lowering="voxpress", fast=fast)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("file_format", ["pte", "tflite"])
def test_more_layers_ask_for_memory_no_more_often(
    file_format: Format, mode: str, low_memory: bool, counter: Path, tmp_path: Path
) -> None:
    words = ("--threads", "2", *(["--low-memory"] if low_memory else []))
    per_run = []
    for name in ("resnet10", "resnet18"):  # 13 and 21 layers
        model = tmp_path / f"model.{file_format}"
        model.write_bytes(model_file(name, file_format, mode))
        with served(model, tmp_path, counter, *words) as (requests, answers, count):
            allocations(requests, answers, count, 1)
            few, many = (allocations(requests, answers, count, runs) for runs in (1, 1 + RUNS))
        assert many > few  # the harness takes a vector for each embedding: the counter counts
        per_run.append((many - few) / RUNS)
    # What is left is the harness's and the runtimes' own. An op that took its scratch itself would add 8.
    assert abs(per_run[1] - per_run[0]) < 1, per_run
