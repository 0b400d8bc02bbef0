"""Both programs that serve a model, on real files of a tiny network: the same words, the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from device_tests.bench.contenders import MODES, Contender, our_contenders
from device_tests.bench.process import Worker, WorkerError
from device_tests.bench.run import worker_command
from exporters.tflite.emit import emit_tflite
from pipeline.artifact.decode import decode
from tests.exporters.pte.models import tiny_pte
from tests.factories import tiny_artifact

FRAMES = 60


def _files(folder: Path, file_format: str) -> tuple[Contender, Path, Path, dict[str, np.ndarray]]:
    crops = {f"u{index}": np.random.default_rng(index).normal(size=(FRAMES, 80)).astype(np.float32) for index in (1, 2)}
    save_file(crops, folder / "features.safetensors")
    model = folder / f"tiny.{file_format}"
    model.write_bytes(tiny_pte(4) if file_format == "pte" else emit_tflite(tiny_artifact(4), lowering="voxpress"))
    (contender,) = our_contenders(["4bit"], MODES[:1], (file_format,))
    return contender, model, folder / "features.safetensors", crops


# Making a .pte takes torch.export, which takes its time.
@pytest.mark.parametrize("file_format", [pytest.param("pte", marks=pytest.mark.slow), "tflite"])
def test_serves_timings_embeddings_and_memory(file_format: str, tmp_path: Path) -> None:
    contender, model, features, crops = _files(tmp_path, file_format)
    worker = Worker(worker_command(contender, model, features, threads=1, frames=FRAMES), threads=1)
    try:
        start = worker.start
        assert (start.engine, start.threads) == ({"pte": "executorch", "tflite": "litert"}[file_format], 1)
        assert min(start.load_ns, start.first_ns) > 0
        assert 0 < start.resident_before_bytes <= start.resident_after_first_bytes
        assert len(worker.run(1, 4)) == 4
        embeddings = worker.embed()
        network = decode(tiny_artifact(4))
        assert set(embeddings) == set(crops)
        for name, crop in crops.items():
            with torch.inference_mode():
                wanted = network(torch.from_numpy(crop)[None])[0].numpy()
            assert np.abs(np.float32(embeddings[name]) - wanted).max() < 1e-5 * np.abs(wanted).max(), name
        memory = worker.memory()
        assert memory.peak_bytes >= memory.resident_bytes > 0
        assert any(name.startswith("conv2d_f32_") for name in memory.kernels)
        worker.close()
    finally:
        worker.kill()


@pytest.mark.parametrize("file_format", [pytest.param("pte", marks=pytest.mark.slow), "tflite"])
def test_refuses_in_one_line(file_format: str, tmp_path: Path) -> None:
    contender, model, features, _ = _files(tmp_path, file_format)
    command = worker_command(contender, model, features, threads=1, frames=FRAMES)
    done = subprocess.run(command, input="run 1\n", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "request: expected run WARMUP RUNS, embed or memory, found run 1"
    assert len(done.stdout.splitlines()) == 1
    model.write_bytes(b"no model at all, but long enough to be one")
    with pytest.raises(WorkerError, match=f"tiny.{file_format}: expected "):
        Worker(command, threads=1)


def test_what_a_runtime_prints_is_no_answer(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from device_tests.bench import worker\n"
        "answers = worker._take_stdout()\n"
        "print('chatter', flush=True)\n"
        "os.write(1, b'chatter of C\\n')\n"
        "answers.write('{\"a\": 1}\\n')\n"
        "answers.flush()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    assert done.stderr.count("chatter") == 2
