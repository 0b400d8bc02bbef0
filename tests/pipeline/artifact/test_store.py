import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from pipeline.artifact.decode import decode
from pipeline.artifact.store import HEADER_FILE, WEIGHTS_FILE, read_artifact, write_artifact
from pipeline.errors import InputError
from tests.factories import tiny_artifact

WIDTHS = [1, 2, 3, 4, 5, 6, 7, 8, 32]


@pytest.mark.parametrize("bits", WIDTHS)
def test_what_is_read_is_what_was_written(tmp_path: Path, bits: int) -> None:
    artifact = tiny_artifact(bits)
    write_artifact(tmp_path / "a", artifact)
    again = read_artifact(tmp_path / "a")
    assert again.header == artifact.header
    features = torch.randn(2, 50, 80, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decode(again)(features), decode(artifact)(features))


@pytest.mark.parametrize("bits", WIDTHS)
def test_weights_bytes_count_what_lies_in_the_file(tmp_path: Path, bits: int) -> None:
    artifact = tiny_artifact(bits)
    write_artifact(tmp_path, artifact)
    file_bytes = (tmp_path / WEIGHTS_FILE).stat().st_size
    header_bytes = 8 + int.from_bytes((tmp_path / WEIGHTS_FILE).read_bytes()[:8], "little")
    assert artifact.weights_bytes == file_bytes - header_bytes
    assert artifact.bits_per_weight == bits


def test_codes_are_packed(tmp_path: Path) -> None:
    write_artifact(tmp_path, tiny_artifact(3))
    tensors = safetensors.numpy.load_file(tmp_path / WEIGHTS_FILE)
    assert tensors["block.conv1.codes"].nbytes == -(-5 * 5 * 9 * 3 // 8)
    assert tensors["block.conv1.palette"].shape == (8,)


@pytest.mark.parametrize("name", [HEADER_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("keep", [0, 1, 7, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, keep: int) -> None:
    write_artifact(tmp_path, tiny_artifact())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: keep if keep >= 0 else -2])
    with pytest.raises(InputError, match=name):
        read_artifact(tmp_path)


@pytest.mark.parametrize("name", [HEADER_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_artifact(tmp_path, tiny_artifact())
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}.*no such file"):
        read_artifact(tmp_path)


def _rewrite(folder: Path, **changes: np.ndarray | None) -> None:
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    safetensors.numpy.save_file(tensors, folder / WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1__codes": None}, "expected a tensor conv1.codes"),
        ({"conv1__codes": np.zeros(3, np.uint8)}, r"conv1.codes uint8 \[23\], found uint8 \[3\]"),
        ({"conv1__palette": np.zeros(15, np.float32)}, r"conv1.palette float32 \[16\]"),
        ({"conv1__palette": np.full(16, np.nan, np.float32)}, "conv1.palette finite"),
        ({"conv1__scale": np.ones(5)}, r"conv1.scale float32 \[5\], found float64"),
        ({"conv1__bias": np.full(5, np.inf, np.float32)}, "conv1.bias finite"),
        ({"stranger": np.zeros(1, np.float32)}, "only tensors that artifact.json names, found stranger"),
    ],
)
def test_tensors_that_do_not_fit_the_header_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    write_artifact(tmp_path, tiny_artifact())
    _rewrite(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        read_artifact(tmp_path)


def test_a_header_with_other_widths_does_not_fit_the_weights(tmp_path: Path) -> None:
    write_artifact(tmp_path, tiny_artifact(4))
    content = json.loads((tmp_path / HEADER_FILE).read_text())
    content["program"][0]["bits"] = 5
    (tmp_path / HEADER_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"conv1\.codes"):
        read_artifact(tmp_path)
