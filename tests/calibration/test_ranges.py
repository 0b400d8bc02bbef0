from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.ranges import read_ranges, tensor_range, write_ranges
from pipeline.errors import InputError
from tests.factories import noise_ranges, tiny_artifact

ENDS = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(ENDS, ENDS)
def test_zero_is_a_byte_and_the_range_is_covered(one: float, two: float) -> None:
    low, high = min(one, two), max(one, two)
    found = tensor_range(low, high, low, high)
    assert 0 <= found.zero <= 255
    assert np.float32(found.scale) == found.scale  # what model files hold
    if low == high == 0:
        return
    # Rounding the zero moves the range by half a step at most.
    slack = 0.5001 * found.scale
    assert -found.scale * found.zero <= min(low, 0.0) + slack
    assert found.scale * (255 - found.zero) >= max(high, 0.0) - slack


def test_a_tensor_that_is_never_negative_has_zero_0() -> None:
    found = tensor_range(0.5, 51.0, 0.5, 51.0)
    assert (found.zero, found.scale) == (0, pytest.approx(0.2))


def test_a_tensor_of_zeros_has_a_scale() -> None:
    assert tensor_range(0.0, 0.0, 0.0, 0.0).scale == 1.0


def test_ranges_travel(tmp_path: Path) -> None:
    artifact = tiny_artifact(4)
    ranges = noise_ranges(artifact)
    write_ranges(tmp_path / "activations.json", ranges)
    assert read_ranges(tmp_path / "activations.json", artifact) == ranges


def test_ranges_of_another_artifact_are_refused(tmp_path: Path) -> None:
    write_ranges(tmp_path / "activations.json", noise_ranges(tiny_artifact(4)))
    with pytest.raises(InputError, match=r"activations\.json: expected ranges of tiny-4bit, sha256 .* found those of"):
        read_ranges(tmp_path / "activations.json", tiny_artifact(4, seed=1))


def _first(content: dict[str, Any]) -> dict[str, Any]:
    return next(iter(content["tensors"].values()))  # type: ignore[no-any-return]


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN scale": (lambda content: _first(content).update(scale=float("nan")), "scale"),
    "negative scale": (lambda content: _first(content).update(scale=-1.0), "scale"),
    "scale beyond float32": (lambda content: _first(content).update(scale=1e39), "scale"),
    "zero 256": (lambda content: _first(content).update(zero=256), "zero"),
    "infinite maximum": (lambda content: _first(content).update(maximum=float("inf")), "maximum"),
    "unknown choice": (lambda content: content["choice"].update(method="entropy"), "choice.method"),
    "three utterances": (lambda content: content.update(utterances=3), "fewer than 4"),
    "extra key": (lambda content: content.update(more=1), "more"),
    "other format": (lambda content: content.update(format="voxpress-plan"), "format"),
    "short hash": (lambda content: content.update(artifact_sha256="0"), "artifact_sha256"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    change, reason = HOSTILE[case]
    artifact = tiny_artifact(4)
    path = tmp_path / "activations.json"
    write_ranges(path, noise_ranges(artifact))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"activations\.json: expected an artifact's activation ranges, .*{reason}"):
        read_ranges(path, artifact)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: expected an artifact's activation ranges, found no such file"):
        read_ranges(tmp_path / "none.json", tiny_artifact(4))
