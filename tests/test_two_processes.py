"""The command line under torchrun: one process writes and evaluates, both train with the losses of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """
name = "tiny"
seed = 1
[corpus]
heldout_share = 0.4
[corpus.synthetic]
speakers = 8
sessions = 1
utterances_per_session = 2
[model]
architecture = "resnet10"
base_channels = 2
embedding_dim = 8
[pretrain]
steps = 12
batch = 8
crop_frames = 40
lr = 0.002
precision = "64-true"
[uniform]
bits = [4]
finetune = { steps = 11, batch = 8, crop_frames = 40, lr = 0.001, precision = "64-true", distillation = 1.0 }
[mixed]
average_bits = [3]
sensitivity = { crops = 2, crop_frames = 40, probes = 1 }
[msft]
groups = 2
finetune = { steps = 2, batch = 8, crop_frames = 40, lr = 0.001, precision = "64-true" }
"""
# In float64, whose rounding does not grow to anything in so few steps; what is left is that of the losses' own float32.
TOLERANCE = 1e-5


def _run(folder: Path, out: str, *launcher: str) -> str:
    words = ["-m", "pipeline.cli", "run", str(folder / "tiny.toml"), "--out", str(folder / out), "--until", "msft"]
    done = subprocess.run([sys.executable, *launcher, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_recipe_under_torchrun(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    said = _run(tmp_path, "two", *two)
    assert said.count("[pretrain]") == 1
    assert said.count("fp32: EER") == 1
    _run(tmp_path, "one")
    for job in ("pretrain", "uniform/4bit", "msft/3bit"):
        histories = [json.loads((tmp_path / out / job / "history.json").read_text()) for out in ("one", "two")]
        losses = [[point["loss"] for point in history] for history in histories]
        assert len(losses[0]) >= 2
        assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)
    again = _run(tmp_path, "two", *two)
    assert again.count("unchanged") == 8
    assert not list((tmp_path / "two").rglob(".*partial*"))
