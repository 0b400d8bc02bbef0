from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import exporters.pte.emit as emit
from exporters.pte.run import PteRunner
from pipeline.errors import InputError
from tests.exporters.pte.models import (
    MAX_FRAMES,
    MAX_SECONDS,
    MIN_FRAMES,
    reference,
    relative_error,
    tiny_pte,
    utterance,
)
from tests.factories import tiny_artifact


def test_a_file_and_its_bytes_run_alike(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pte"
    path.write_bytes(tiny_pte(4))
    features = utterance(57)
    from_file = PteRunner(path).embed(features)
    assert (from_file == PteRunner(tiny_pte(4)).embed(features)).all()
    assert relative_error(from_file, reference(4, features)) < 1e-5


@pytest.mark.parametrize("content", [b"", b"not a program", b"\0" * 4096, b"PK\x03\x04" + b"x" * 1000])
def test_garbage_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.pte"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"garbage\.pte: expected a whole ExecuTorch file"):
        PteRunner(path)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "cut.pte"
    path.write_bytes(tiny_pte(4)[: int(len(tiny_pte(4)) * part)])
    with pytest.raises(InputError, match=r"cut\.pte: expected a whole ExecuTorch file"):
        PteRunner(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pte: expected an ExecuTorch file, found No such file"):
        PteRunner(tmp_path / "none.pte")


@pytest.mark.parametrize(
    "shape", [(MAX_FRAMES + 1, 80), (MIN_FRAMES - 1, 80), (0, 80), (100, 79), (1, 100, 80), (8000,)]
)
def test_features_beyond_the_limits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"expected \[{MIN_FRAMES}\.\.{MAX_FRAMES}, 80\], found"):
        PteRunner(tiny_pte(4)).embed(np.zeros(shape, np.float32))


def test_an_op_version_of_the_future_is_an_error_and_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "CONV2D_VERSION", 2)
    runner = PteRunner(emit.emit_pte(tiny_artifact(4), lowering="voxpress", max_seconds=MAX_SECONDS))
    with pytest.raises(InputError, match="expected a model that runs"):
        runner.embed(utterance(100))
