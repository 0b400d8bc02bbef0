"""Int8 controls of both runtimes, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from exporters import int8_control
from exporters.inspect_model import inspect_model
from exporters.int8_control import CHECKED, Int8Control
from exporters.tflite.int8 import FLOAT_OPS
from pipeline.artifact.store import write_artifact
from pipeline.cli import app
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.errors import InputError, VerificationError, VoxPressError
from pipeline.progress import Progress
from tests.factories import tiny_artifact

pytestmark = pytest.mark.slow  # TensorFlow takes its time to import
FRAMES = 98


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact, and synthetic voices to calibrate it on."""
    made = tmp_path_factory.mktemp("int8")
    write_artifact(made / "artifact", tiny_artifact(4))
    make_synthetic_corpus(made / "voices", speakers=4, seed=1, sessions=1, utterances_per_session=6, seconds=(1.1, 1.5))
    return made


def export(folder: Path, *words: str) -> tuple[int, str, BaseException | None]:
    command = ["export", str(folder / "artifact"), "--int8", "--frames", str(FRAMES), "--max-seconds", "3", *words]
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.stdout, done.exception


def test_both_formats_are_calibrated_on_speech_and_checked(folder: Path, tmp_path: Path) -> None:
    code, said, error = export(folder, "--audio", str(folder / "voices"), "--out", str(tmp_path), "--json")
    assert code == 0, error
    written = [Int8Control.model_validate(one) for one in json.loads(said)]
    assert [(one.file, one.frames) for one in written] == [("tiny-4bit-int8.pte", None), ("tiny-4bit-int8.tflite", 98)]
    for one in written:
        assert (tmp_path / one.file).stat().st_size == one.bytes
        assert one.agreement.checked == CHECKED
        assert 0.95 < one.agreement.cosine_min < 1 - 1e-6  # int8, not fp32

    contents = inspect_model(tmp_path / "tiny-4bit-int8.tflite")
    assert {op.name for op in contents.ops} >= {"QUANTIZE", "DEQUANTIZE", "CONV_2D"}
    assert (contents.inputs[0].type, contents.inputs[0].shape) == ("float32", (1, FRAMES, 80))


def test_pooling_computes_in_fp32_and_convolutions_in_int8(folder: Path, tmp_path: Path) -> None:
    words = ("--audio", str(folder / "voices"), "--format", "tflite", "--out", str(tmp_path))
    code, _, error = export(folder, *words)
    assert code == 0, error
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(tmp_path / "tiny-4bit-int8.tflite"))
    interpreter.allocate_tensors()
    types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    ops = interpreter._get_ops_details()
    results = {(op["op_name"], types[op["outputs"][0]]) for op in ops}
    assert {("CONV_2D", np.int8), ("SQRT", np.float32)} <= results
    assert {kind for name, kind in results if name in FLOAT_OPS} == {np.float32}
    assert {kind for name, kind in results if name in ("CONV_2D", "FULLY_CONNECTED")} == {np.int8}


@pytest.mark.parametrize("file_format", ["pte", "tflite"])
def test_what_is_far_from_the_reference_is_not_written(
    file_format: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noise that no one speaks like: ranges measured on it are far too small.
    def quiet(*_: object) -> tuple[list[np.ndarray], list[np.ndarray]]:
        calibration, others = speech_crops(folder / "voices", tiny_artifact(4), FRAMES)
        return [crop * np.float32(1e-3) for crop in calibration], others

    speech_crops = int8_control.speech_crops
    monkeypatch.setattr(int8_control, "speech_crops", quiet)
    what = rf"tiny-4bit-int8\.{file_format}: expected cosines of at least 0\.95, 0\.98 on the mean"
    with pytest.raises(VerificationError, match=what):
        int8_control.export_int8(
            folder / "artifact",
            formats=(file_format,),  # type: ignore[arg-type]
            audio=folder / "voices",
            frames=FRAMES,
            max_seconds=3.0,
            out=tmp_path / "out",
            progress=Progress.silent(),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--audio: expected a folder of utterances, for --int8, found none"),
        (("--audio", "{voices}", "--frames", "27"), "--frames: expected at least 28, found 27"),
        (("--audio", "{voices}", "--frames", "400"), "--frames: expected at most 298 (--max-seconds), found 400"),
        (("--audio", "{voices}", "--frames", "200"), "expected at least 16 utterances of 200 frames, found 0"),
        (("--audio", "{voices}", "--mode", "fast"), "--int8: expected none of the other files' options, found --mode"),
        (("--audio", "{voices}", "--format", "onnx"), "--format: expected pte, tflite, both or coreml, found onnx"),
        (("--audio", "{voices}", "--max-seconds", "nan"), "--max-seconds: expected 0.3 to 600, found nan"),
        (("--format", "coreml"), "--format coreml: expected none of the other files' options, found --int8"),
    ],
)
def test_bad_options_are_named(words: tuple[str, ...], said: str, folder: Path, tmp_path: Path) -> None:
    filled = [word.format(voices=folder / "voices") for word in words]
    _, _, error = export(folder, *filled, "--out", str(tmp_path / "out"))
    assert isinstance(error, InputError | VoxPressError)
    assert said in str(error)
    assert not (tmp_path / "out").exists()
