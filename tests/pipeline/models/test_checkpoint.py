import os
from pathlib import Path

import pytest
import torch

from pipeline.errors import InputError
from pipeline.models.checkpoint import read_checkpoint

STATE = {"conv1.weight": torch.ones(2), "bn1.bias": torch.zeros(3)}


class _Trap:
    """Unpickling this writes a file: a reader that runs what a pickle names is found out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _with_prefix(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"lr": 0.1}, "epoch": 3},
        {"state_dict": STATE},
        {"state_dict": {"model": STATE}},
        _with_prefix("module."),
        {"model": _with_prefix("module.")},
        {"state_dict": _with_prefix("model.")},
        _with_prefix("module.model."),
        _with_prefix("model.module."),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_state_dict_is_found(tmp_path: Path, content: dict, legacy: bool) -> None:
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "c.pt")
    assert list(read) == list(STATE)
    assert all(torch.equal(read[key], value) for key, value in STATE.items())


def test_a_prefix_that_some_keys_lack_stays(tmp_path: Path) -> None:
    torch.save({"model.weight": torch.ones(1), "head": torch.ones(1)}, tmp_path / "c.pt")
    assert list(read_checkpoint(tmp_path / "c.pt")) == ["model.weight", "head"]


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_with_a_foreign_class_is_not_run(tmp_path: Path, nested: bool) -> None:
    trap = _Trap(tmp_path / "trapped")
    torch.save({"model": STATE, "args": trap} if nested else trap, tmp_path / "c.pt")
    with pytest.raises(
        InputError, match=r"c\.pt: expected .*, found a pickle that names posix\.mkdir, which is not run"
    ):
        read_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.ones(1)], "found a list"),
        ({}, "found an empty one"),
        ({"model": {}}, "found an empty one"),
        ({"model": STATE | {"epoch": 3}}, "found 'epoch': int"),
        ({1: torch.ones(1)}, "found 1: Tensor"),
        (torch.ones(3), "found a Tensor"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=found) as caught:
        read_checkpoint(tmp_path / "c.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 30, 200, -1])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file(tmp_path: Path, keep: int, legacy: bool) -> None:
    path = tmp_path / "c.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"c\.pt: expected a whole torch checkpoint") as caught:
        read_checkpoint(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", [b"this is not a checkpoint\n" * 40, bytes(4096), b"PK\x03\x04" + bytes(500)])
def test_what_is_no_checkpoint(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "c.pt").write_bytes(text)
    with pytest.raises(InputError, match=r"c\.pt: expected a whole torch checkpoint"):
        read_checkpoint(tmp_path / "c.pt")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        read_checkpoint(tmp_path / "c.pt")
    with pytest.raises(InputError, match="found a folder"):
        read_checkpoint(tmp_path)
