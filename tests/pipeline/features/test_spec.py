from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.features.fbank import read_spec
from pipeline.features.spec import FILE_NAME, FrontEndSpec


def test_written_spec_comes_back(tmp_path: Path) -> None:
    spec = FrontEndSpec(num_mel_bins=64, window="povey", sample_rate_hz=8000, high_hz=-200)
    spec.write(tmp_path)
    assert read_spec(tmp_path) == spec
    assert read_spec(tmp_path / FILE_NAME) == spec


def _read(folder: Path, **changes: Any) -> FrontEndSpec:
    content = json.loads(FrontEndSpec().model_dump_json()) | changes
    (folder / FILE_NAME).write_text(json.dumps(content))
    return read_spec(folder)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"windw": "hamming"}, "windw: Extra inputs"),
        ({"num_mel_bins": "80"}, "num_mel_bins: .*integer"),
        ({"num_mel_bins": 80.5}, "num_mel_bins: .*integer"),
        ({"num_mel_bins": 0}, "num_mel_bins: .*greater"),
        ({"num_mel_bins": 2}, "num_mel_bins: .*greater"),
        ({"num_mel_bins": 128}, "num_mel_bins 128: no frequency of the FFT lies in bin 3"),
        ({"round_to_power_of_two": False, "frame_length_ms": 25.07}, "frame of 401 samples: .*even"),
        ({"use_log": 1}, "use_log: .*boolean"),
        ({"preemphasis": "0.97"}, "preemphasis: .*number"),
        ({"sample_scale": 0}, "sample_scale: .*greater"),
        ({"window": "blackman"}, "window: "),
        ({"dither": 1.0}, "dither: "),
        ({"snip_edges": False}, "snip_edges: "),
        ({"use_energy": True}, "use_energy: "),
        ({"sample_rate_hz": 4000}, "sample_rate_hz: "),
        ({"low_hz": 9000.0}, "mel range"),
        ({"high_hz": 9000.0}, "mel range"),
        ({"frame_shift_ms": 0.01}, "less than a sample"),
        ({"min_seconds": 0.01}, "shorter than a frame"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"{FILE_NAME}: expected a front-end specification, found .*{found}") as caught:
        _read(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_whole_numbers_pass_as_reals(tmp_path: Path) -> None:
    assert _read(tmp_path, sample_scale=32768, frame_shift_ms=10) == FrontEndSpec()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sample_scale": NaN}'])
def test_not_a_specification(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(InputError, match="front-end specification"):
        read_spec(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_spec(tmp_path)
