from __future__ import annotations

from pathlib import Path

import pytest

from exporters.tflite import onnx2tf_route
from pipeline.artifact.store import write_artifact
from pipeline.errors import VerificationError, VoxPressError
from tests.factories import tiny_artifact

pytestmark = pytest.mark.slow  # TensorFlow takes its time to import


@pytest.mark.parametrize("frames", [98, 201])
def test_the_file_is_the_network(frames: int, tmp_path: Path) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    found = onnx2tf_route.export(tmp_path / "artifact", frames, tmp_path / "m.tflite")
    assert found.max_relative_error < 1e-5
    assert (tmp_path / "m.tflite").read_bytes()[4:8] == b"TFL3"


def test_without_keeping_the_input_the_file_is_not_the_network() -> None:
    artifact = tiny_artifact(4)
    try:
        data = onnx2tf_route.convert(artifact, 98, keep_input=False)
    except VoxPressError as error:
        assert "onnx2tf could not convert it" in str(error)  # noqa: PT017 - either is the pitfall
    else:
        found = onnx2tf_route.check(data, artifact, [onnx2tf_route.noise(artifact, 98)])
        assert found is None or not found.max_relative_error <= 1e-4


def test_a_file_that_is_not_the_network_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    other = onnx2tf_route.convert(tiny_artifact(4, seed=1), 98)
    monkeypatch.setattr(onnx2tf_route, "convert", lambda artifact, frames: other)
    with pytest.raises(VerificationError, match=r"m\.tflite: expected embeddings within 0\.0001 of the reference's"):
        onnx2tf_route.export(tmp_path / "artifact", 98, tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    words = [str(tmp_path / "artifact"), "--out", str(tmp_path / "m.tflite")]
    assert onnx2tf_route.main([*words, "--frames", "27"]) == 2
    assert capsys.readouterr().err == "voxpress: --frames: expected at least 28, found 27\n"
    with pytest.raises(SystemExit):
        onnx2tf_route.main(["--help"])
    assert "Example: python -m" in capsys.readouterr().out
