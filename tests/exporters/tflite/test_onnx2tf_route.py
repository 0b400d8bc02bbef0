from __future__ import annotations

from pathlib import Path

import pytest

from exporters.inspect_model import inspect_model
from exporters.tflite import onnx2tf_route
from pipeline.artifact.store import write_artifact
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.errors import VerificationError, VoxPressError
from tests.factories import tiny_artifact

pytestmark = pytest.mark.slow  # TensorFlow takes its time to import


@pytest.mark.parametrize("frames", [98, 201])
def test_the_file_is_the_network(frames: int, tmp_path: Path) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    found = onnx2tf_route.export(tmp_path / "artifact", frames, tmp_path / "m.tflite")
    assert found.max_relative_error < 1e-5
    assert (tmp_path / "m.tflite").read_bytes()[4:8] == b"TFL3"


def test_int8_is_calibrated_on_speech_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(tmp_path / "artifact", tiny_artifact(4))
    make_synthetic_corpus(
        tmp_path / "voices", speakers=4, seed=1, sessions=1, utterances_per_session=6, seconds=(1.1, 1.5)
    )
    found = onnx2tf_route.export(tmp_path / "artifact", 98, tmp_path / "m.tflite", audio=tmp_path / "voices")
    assert found.checked == onnx2tf_route.CHECKED
    assert 0.95 < found.cosine_min < 1 - 1e-6  # int8, not fp32
    contents = inspect_model(tmp_path / "m.tflite")
    assert {op.name for op in contents.ops} >= {"QUANTIZE", "DEQUANTIZE", "CONV_2D"}
    assert (contents.inputs[0].type, contents.inputs[0].shape) == ("float32", (1, 98, 80))

    other = onnx2tf_route.convert(tiny_artifact(4, seed=1), 98)
    monkeypatch.setattr(onnx2tf_route, "convert", lambda *_, **__: other)
    with pytest.raises(VerificationError, match=r"n\.tflite: expected cosines of at least 0\.95, 0\.98 on the mean"):
        onnx2tf_route.export(tmp_path / "artifact", 98, tmp_path / "n.tflite", audio=tmp_path / "voices")
    assert not (tmp_path / "n.tflite").exists()


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
    (tmp_path / "none").mkdir()
    assert onnx2tf_route.main([*words, "--audio", str(tmp_path / "none")]) == 2
    assert "voxpress: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        onnx2tf_route.main(["--help"])
    assert "Example: python -m" in capsys.readouterr().out
