"""What the network that matters takes beside its file: weights in memory, and the time until it is ready."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
import pytest
from safetensors.numpy import save_file

from device_tests.bench.contenders import MODES, Contender, our_contenders
from device_tests.bench.process import Worker
from device_tests.bench.run import worker_command
from exporters.exported import Format
from exporters.pte.emit import emit_pte
from exporters.tflite.emit import emit_tflite
from tests.exporters.pte.models import resnet34_artifact
from tests.factories import noise_program

pytestmark = pytest.mark.slow

FRAMES = 200
MOST_BESIDE_FILE_BYTES = 3_000_000
READY_NS, READY_INFERENCES = 150_000_000, 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet34 of 4 bits in mode fast, in both formats, and an utterance."""
    made = tmp_path_factory.mktemp("resnet34")
    artifact = resnet34_artifact(4)
    fast = noise_program(artifact)
    (made / "model.pte").write_bytes(emit_pte(artifact, lowering="voxpress", max_seconds=4.0, fast=fast))
    (made / "model.tflite").write_bytes(emit_tflite(artifact, lowering="voxpress", fast=fast))
    save_file({"u": np.random.default_rng(0).normal(size=(FRAMES, 80)).astype(np.float32)}, made / "u.safetensors")
    return made


def started(folder: Path, contender: Contender) -> Worker:
    model = folder / f"model.{contender.format}"
    command = worker_command(contender, model, folder / "u.safetensors", threads=1, frames=FRAMES)
    return Worker(command, threads=1)


def fast_contenders(file_format: Format) -> tuple[Contender, Contender]:
    whole, low = our_contenders(["4bit"], MODES[2:], (file_format,))
    assert low.low_memory
    assert not whole.low_memory
    return whole, low


@pytest.mark.parametrize("file_format", ["pte", "tflite"])
def test_low_memory_keeps_weights_packed_but_for_three_megabytes(folder: Path, file_format: Format) -> None:
    held, resident = [], []
    for contender in fast_contenders(file_format):
        worker = started(folder, contender)
        try:
            worker.run(0, 2)
            memory = worker.memory()
            assert memory.kernels_hold is not None
            held.append(memory.kernels_hold)
            resident.append(memory.resident_bytes - worker.start.resident_before_bytes)
        finally:
            worker.close()
    whole, low = held
    assert whole.weight_bytes > 3 * MOST_BESIDE_FILE_BYTES
    assert low.weight_bytes == 0
    assert 0 < low.scratch_bytes <= MOST_BESIDE_FILE_BYTES
    # What the kernels say of themselves is what the process grows by: the rest is the same in both.
    counted = whole.weight_bytes + whole.scratch_bytes - low.scratch_bytes
    assert resident[0] - resident[1] == pytest.approx(counted, rel=0.1, abs=1_000_000)


@pytest.mark.parametrize("file_format", ["pte", "tflite"])
def test_it_is_ready_in_150_ms_or_three_inferences(folder: Path, file_format: Format) -> None:
    contender, _ = fast_contenders(file_format)
    found = []
    for _ in range(3):  # a process that was disturbed meanwhile says nothing
        worker = started(folder, contender)
        try:
            limit_ns = max(READY_NS, READY_INFERENCES * median(worker.run(1, 5)))
            found.append((worker.start.load_ns + worker.start.first_ns) / limit_ns)
        finally:
            worker.close()
    assert min(found) <= 1.0, found
