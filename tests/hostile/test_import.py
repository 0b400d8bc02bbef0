"""Checkpoints at the command line: good ones become models, bad ones one line, and no pickle is ever run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pipeline.models.toolkit import BASIC, resnet_state

ROOT = Path(__file__).resolve().parents[2]


def _voxpress(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def _import(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return _voxpress("import", "wespeaker", folder / "c.pt", "--out", folder / "model", *words)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return resnet_state(BASIC, (2, 2, 2, 2), base=2, mel=40, embedding=6)


def test_a_checkpoint_becomes_a_model(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 1}, tmp_path / "c.pt")
    (tmp_path / "config.yaml").write_text("model: ResNet18\nmodel_args: {feat_dim: 40, pooling_func: TSTP}\n")
    done = _import(tmp_path, "--arch", "resnet18", "--yaml", tmp_path / "config.yaml")
    assert done.returncode == 0, done.stderr
    count = sum(value.numel() for key, value in state.items() if key.endswith((".weight", ".bias")))
    assert f"resnet18, {count} parameters, 2 base channels, 40 mel bins, 6-dim embedding" in done.stdout
    assert json.loads((tmp_path / "model" / "model.json").read_text())["spec"]["num_mel_bins"] == 40


def _foreign_class(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"model": state, "args": _Trap(path.parent / "trapped")}, path)


def _truncated(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])


def _deeper(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(resnet_state(BASIC, (3, 4, 6, 3), base=2, mel=40, embedding=6), path)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (_foreign_class, "names posix.mkdir"),
        (_truncated, "expected a whole torch checkpoint"),
        (_deeper, "these are the keys of a resnet34"),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, state: dict[str, torch.Tensor], write, found: str) -> None:
    write(tmp_path / "c.pt", state)
    done = _import(tmp_path, "--arch", "resnet18")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("voxpress: ")]
    assert f"{tmp_path / 'c.pt'}: expected " in line
    assert found in line
    assert not (tmp_path / "trapped").exists()
    assert not (tmp_path / "model").exists()


def test_models_are_listed() -> None:
    done = _voxpress("models", "--json")
    assert done.returncode == 0, done.stderr
    sizes = {size["spec"]["architecture"]: size for size in json.loads(done.stdout)}
    assert sizes["resnet34"]["parameters"] == 6634336
    assert sizes["gemini-dfresnet114"]["palette_bytes"]["4"] < sizes["gemini-dfresnet114"]["fp32_bytes"] / 7
