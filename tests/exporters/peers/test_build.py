"""Every peer that is installed, on a tiny network: its embeddings are those of the float weights it was built from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from device_tests.bench.contenders import peer_contenders
from device_tests.bench.process import Worker
from device_tests.bench.run import cosines, worker_command
from exporters.peers.catalogue import PEERS, Peer
from pipeline.artifact.decode import decode
from pipeline.artifact.store import write_artifact
from tests.factories import tiny_artifact

FRAMES = 60
# Cosine of embeddings to those of the float weights: rounding of sums, of 8-bit activations, of 4-bit weights.
LEAST_COSINE = {"fp32": 0.999999, "int8": 0.995, "weight-only": 0.95}


def _build(name: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    options = ["--artifact", folder.parent / "artifact", "--calibration", folder.parent / "crops.safetensors"]
    options += ["--out", folder, "--frames", FRAMES, "--max-seconds", 4.0, *words]
    command = [sys.executable, "-m", "exporters.peers.build", name, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peer_gives_the_embeddings_of_its_weights(peer: Peer, tmp_path: Path) -> None:
    missing = peer.missing_packages()
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    artifact = tiny_artifact(4, depthwise=True)
    write_artifact(tmp_path / "artifact", artifact)
    crops = {f"u{i}": np.random.default_rng(i).normal(0, 2, (FRAMES, 80)).astype(np.float32) for i in range(6)}
    save_file(crops, tmp_path / "crops.safetensors")
    done = _build(peer.name, tmp_path / "made")
    assert done.returncode == 0, done.stderr[-2000:]
    files = [tmp_path / "made" / name for name in json.loads((tmp_path / "made" / "files.json").read_text())]
    assert all(path.is_file() for path in files)

    (contender,) = peer_contenders([peer])
    command = worker_command(contender, files[0], tmp_path / "crops.safetensors", threads=1, frames=FRAMES)
    worker = Worker(command, threads=1)
    try:
        embeddings = worker.embed()
    finally:
        worker.kill()
    network = decode(artifact)
    with torch.inference_mode():
        wanted = {name: network(torch.from_numpy(crop)[None])[0].numpy() for name, crop in crops.items()}
    found = cosines(embeddings, wanted)
    assert min(found.values()) > LEAST_COSINE[peer.kind], found
    if peer.kind != "fp32":
        # An int8 file that gives the float embeddings to the last digit would be a float file.
        assert min(found.values()) < 1 - 1e-7


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    save_file({"u": np.zeros((FRAMES, 80), np.float32)}, tmp_path / "crops.safetensors")
    done = _build("tvm", tmp_path / "made")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("peer: expected one of executorch-fp32")
    assert not list((tmp_path / "made").iterdir())
