from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.stamp import STAMP_FILE, current_stamp, make_stamp, write_stamp


class Settings(BaseModel):
    bits: int = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    write_stamp(tmp_path, make_stamp("stage", Settings(), {"in": "x"}, tmp_path))
    return tmp_path


def test_nothing_changed(folder: Path) -> None:
    stamp = current_stamp("stage", Settings(), {"in": "x"}, folder)
    assert stamp is not None
    assert set(stamp.outputs) == {"sub/a", "b"}
    assert stamp.outputs_sha256 == make_stamp("stage", Settings(), {"in": "x"}, folder).outputs_sha256


def test_other_settings_inputs_or_stage(folder: Path) -> None:
    assert current_stamp("stage", Settings(bits=3), {"in": "x"}, folder) is None
    assert current_stamp("stage", Settings(), {"in": "y"}, folder) is None
    assert current_stamp("stage", Settings(), {"in": "x", "more": "z"}, folder) is None
    assert current_stamp("other", Settings(), {"in": "x"}, folder) is None


def test_outputs_that_were_touched(folder: Path) -> None:
    (folder / "b").write_text("3")
    assert current_stamp("stage", Settings(), {"in": "x"}, folder) is None


def test_outputs_that_are_gone(folder: Path) -> None:
    (folder / "sub" / "a").unlink()
    assert current_stamp("stage", Settings(), {"in": "x"}, folder) is None


def test_a_damaged_or_missing_stamp(folder: Path) -> None:
    (folder / STAMP_FILE).write_text("{")
    assert current_stamp("stage", Settings(), {"in": "x"}, folder) is None
    (folder / STAMP_FILE).unlink()
    assert current_stamp("stage", Settings(), {"in": "x"}, folder) is None
