import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from calibration.post_training import Widths, quantize_model
from pipeline.artifact.store import read_artifact
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import ModelHeader, write_pretrained
from pipeline.progress import Progress

QUIET = Progress(Console(file=open(os.devnull, "w")))  # noqa: SIM115 - lives as long as the tests


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    spec = ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8)
    (tmp_path / "model").mkdir()
    header = ModelHeader(spec=spec, created_by="tests")
    write_pretrained(tmp_path / "model", header, build_model(spec), FrontEndSpec(), None)
    return tmp_path / "model"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for take in range(4):
        path = tmp_path / "audio" / "a" / f"{take}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(take).normal(0, 0.1, 16000), 16000)
    return tmp_path / "audio"


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_uniform(model: Path, tmp_path: Path, bits: int) -> None:
    artifact, _ = quantize_model(model, Widths(bits=bits), tmp_path / "out", progress=QUIET)
    stored = read_artifact(tmp_path / "out")
    assert stored.bits_per_weight == bits
    assert stored.header == artifact.header
    assert stored.header.name == f"resnet10-c2-{bits}bit"


def test_mixed_within_its_budget(model: Path, audio: Path, tmp_path: Path) -> None:
    three, _ = quantize_model(model, Widths(bits=3), tmp_path / "three", progress=QUIET)
    widths = Widths(average_bits=3, audio=audio, crops=4)
    mixed, plan = quantize_model(model, widths, tmp_path / "mixed", progress=QUIET)
    assert mixed.weights_bytes <= three.weights_bytes
    assert mixed.weights_bytes == plan.bytes
    assert len(set(plan.layers.values())) > 1
    by_hand = Widths(plan=tmp_path / "mixed" / "plan.json")
    again, _ = quantize_model(model, by_hand, tmp_path / "again", progress=QUIET)
    assert again.weights_bytes == mixed.weights_bytes


def test_audio_gives_the_artifact_statistics_of_its_own(model: Path, audio: Path, tmp_path: Path) -> None:
    plain, _ = quantize_model(model, Widths(bits=4), tmp_path / "plain", progress=QUIET)
    measured, _ = quantize_model(model, Widths(bits=4, audio=audio, crops=4), tmp_path / "measured", progress=QUIET)
    for name, layer in plain.layers.items():
        np.testing.assert_array_equal(layer.codes, measured.layers[name].codes)
    assert not np.array_equal(plain.layers["conv1"].scale, measured.layers["conv1"].scale)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({}, "exactly one of --bits.* found none"),
        ({"bits": 4, "average_bits": 3.0}, "found bits, average_bits"),
        ({"bits": 9}, "--bits: expected a width from 1 to 8, found 9"),
        ({"average_bits": 0.5}, "--average-bits: expected a number from 1 to 8, found 0.5"),
        ({"average_bits": 3.0}, "--audio: expected a folder of calibration utterances"),
    ],
)
def test_contradictions_are_refused(widths: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Widths(**widths)  # type: ignore[arg-type]


def test_a_hopeless_budget_and_a_small_corpus(model: Path, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="byte budget: expected at least"):
        quantize_model(model, Widths(budget_bytes=10, audio=audio, crops=2), tmp_path / "out", progress=QUIET)
    (audio / "a" / "0.wav").unlink()
    with pytest.raises(InputError, match="at least 4 utterances, found 3"):
        quantize_model(model, Widths(average_bits=2, audio=audio), tmp_path / "out", progress=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_not_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="mine: expected a new or empty folder"):
        quantize_model(model, Widths(bits=4), tmp_path / "mine", progress=QUIET)
    assert (tmp_path / "mine" / "thesis.txt").exists()
