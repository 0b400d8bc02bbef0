from pathlib import Path

import pytest
import safetensors.torch
import torch

from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import HEAD_FILE, WEIGHTS_FILE, ModelHeader, read_pretrained, write_pretrained

SPEC = ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    header = ModelHeader(spec=SPEC, speakers=("ann", "bob", "eve"), created_by="tests")
    write_pretrained(tmp_path, header, build_model(SPEC), FrontEndSpec(), torch.randn(3, 8))
    return tmp_path


def test_what_is_read_is_what_was_written(model: Path) -> None:
    one, two = read_pretrained(model), read_pretrained(model)
    assert one.header.speakers == ("ann", "bob", "eve")
    assert not one.network.training
    assert one.head is not None
    assert one.head.shape == (3, 8)
    x = torch.randn(1, 30, 80)
    assert torch.equal(one.network(x), two.network(x))


def _rewrite(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = safetensors.torch.load_file(path)
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    safetensors.torch.save_file(tensors, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer2.0.bn1.weight": None}, "expected a tensor layer2.0.bn1.weight"),
        ({"projection.weight": torch.zeros(2)}, "an extra projection.weight"),
        ({"seg_1.bias": torch.zeros(9)}, r"seg_1.bias \[8\], found \[9\]"),
    ],
)
def test_every_key_is_accounted_for(model: Path, changes: dict[str, torch.Tensor | None], message: str) -> None:
    _rewrite(model / WEIGHTS_FILE, **changes)
    with pytest.raises(InputError, match=message):
        read_pretrained(model)


def test_a_head_of_other_speakers_is_refused(model: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(4, 8)}, model / HEAD_FILE)
    with pytest.raises(InputError, match=r"head.safetensors: expected weight \[3, 8\], found \[4, 8\]"):
        read_pretrained(model)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, HEAD_FILE, "model.json", "frontend.json"])
def test_a_truncated_file_is_named(model: Path, name: str) -> None:
    (model / name).write_bytes((model / name).read_bytes()[:-20])
    with pytest.raises(InputError, match=name):
        read_pretrained(model)


def test_pickles_are_not_loaded(model: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, model / WEIGHTS_FILE)
    with pytest.raises(InputError, match="a whole safetensors file"):
        read_pretrained(model)
