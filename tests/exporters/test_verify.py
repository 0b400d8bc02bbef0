"""What is written is near the reference, and mode fast the same bytes in both runtimes; what is not is not written."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import exporters.export as export
import exporters.verify as verify
from exporters.export import ExportRequest, export_artifact, prepare_fast
from exporters.exported import Format
from exporters.fast import FastProgram, Quantization
from exporters.pte.run import PteRunner
from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from exporters.verify import FastReference, agreement
from pipeline.errors import VerificationError
from pipeline.progress import Progress
from tests.device_tests.released import nudged
from tests.exporters.tflite.models import pack, set_option, unpack
from tests.factories import noise_program, noise_utterances, tiny_artifact

FORMATS: tuple[Format, ...] = ("tflite", "pte")


def reference(program: FastProgram | None = None) -> FastReference:
    artifact = tiny_artifact(4)
    return FastReference(artifact, artifact, program or noise_program(artifact), noise_utterances(), max_seconds=4.0)


def emitted(program: FastProgram) -> bytes:
    return emit_tflite(tiny_artifact(4), lowering="voxpress", fast=program)


def altered(name: str, **changes: float) -> FastProgram:
    program = noise_program(tiny_artifact(4))
    old = program.bytes_of[name]
    new = Quantization(changes.get("scale", old.scale), int(changes.get("zero", old.zero)))
    return FastProgram(program.ranges, {**program.bytes_of, name: new})


@pytest.mark.parametrize("depthwise", [False, True])
def test_both_formats_are_written_and_give_the_same_bytes(tmp_path: Path, depthwise: bool) -> None:
    artifact, utterances = tiny_artifact(4, depthwise=depthwise), noise_utterances()
    fast = prepare_fast(artifact, utterances, tmp_path, max_seconds=4.0, progress=Progress.silent())
    written = [
        export_artifact(ExportRequest(artifact, "4bit", one, "voxpress", fast), tmp_path, max_seconds=4.0)
        for one in FORMATS
    ]
    assert {path.name for path in tmp_path.iterdir()} == {
        "tiny-4bit-fast.tflite", "tiny-4bit-fast.pte", "tiny-4bit-activations.json"
    }  # fmt: skip
    for one in written:
        assert one.mode == "fast"
        assert one.agreement.cosine_min > 0.9995
        assert one.agreement.max_relative_error > 1e-4  # it is not mode exact
    runners = (TfliteRunner(tmp_path / written[0].file), PteRunner(tmp_path / written[1].file))
    for frames in (28, 29, 98, 200, 301, 398):
        features = np.random.default_rng(frames).normal(0, 2, (frames, 80)).astype(np.float32)
        tflite, pte = (runner.embed(features) for runner in runners)
        assert tflite.tobytes() == pte.tobytes(), frames


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_a_little_off_the_artifact_is_refused_and_nothing_is_written(
    file_format: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny_artifact(4)
    other, emit = nudged(artifact, 1e-3), getattr(export, f"emit_{file_format}")
    monkeypatch.setattr(export, f"emit_{file_format}", lambda _, **options: emit(other, **options))
    request = ExportRequest(artifact, "4bit", file_format, "voxpress")
    found = rf"tiny-4bit\.{file_format}: expected embeddings within 0\.0001 of the reference's at 28 frames, found 0"
    with pytest.raises(VerificationError, match=found):
        export_artifact(request, tmp_path, max_seconds=4.0)
    assert not list(tmp_path.iterdir())


def test_ranges_that_clip_speech_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    clipped = altered("block.conv2", scale=noise_program(tiny_artifact(4)).bytes_of["block.conv2"].scale / 20)
    request = ExportRequest(tiny_artifact(4), "4bit", "tflite", "voxpress", reference(clipped))
    with pytest.raises(VerificationError, match=r"tiny-4bit-fast\.tflite: expected embeddings of a cosine of at least"):
        export_artifact(request, tmp_path, max_seconds=4.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("node", "offset", "fmt", "value"),
    [(1, 40, "f", 1.0), (1, 44, "i", 90), (5, 52, "i", 0)],
    ids=["input scale", "input zero", "residual zero"],
)
def test_layers_that_understand_bytes_otherwise_than_their_writer_are_refused(
    node: int, offset: int, fmt: str, value: float
) -> None:
    checked = reference()
    model = unpack(emitted(checked.program))
    for tensor in model.subgraphs[0].tensors:
        tensor.quantization = None  # with it the runtime itself would refuse
    set_option(model, offset, struct.pack(f"<{fmt}", value), node)
    with pytest.raises(VerificationError, match="expected embeddings of a cosine of at least"):
        checked.verify(pack(model), "tflite", name="odd.tflite")


def test_a_second_file_with_other_bytes_is_refused() -> None:
    checked = reference()
    checked.verify(emitted(checked.program), "tflite", name="first.tflite")
    checked.verify(emitted(checked.program), "tflite", name="same.tflite")
    first = checked.program.bytes_of["conv1"]
    near = altered("conv1", scale=float(np.float32(first.scale * 1.001)))
    with pytest.raises(VerificationError, match=r"second\.tflite: expected the embeddings of first\.tflite, found"):
        checked.verify(emitted(near), "tflite", name="second.tflite")


@pytest.mark.parametrize(
    ("bound", "reason"),
    [("LEAST_COSINE", "to the reference for u"), ("LEAST_MEAN_COSINE", "to the reference on the mean")],
)
def test_each_bound_is_one(monkeypatch: pytest.MonkeyPatch, bound: str, reason: str) -> None:
    monkeypatch.setattr(verify, bound, 1.0000001)
    checked = reference()
    with pytest.raises(VerificationError, match=reason):
        checked.verify(emitted(checked.program), "tflite", name="x.tflite")


def test_agreement_of_embeddings() -> None:
    one, two = np.array([3.0, 4.0], np.float32), np.array([4.0, 3.0], np.float32)
    found = agreement([(one, one), (two, one)])
    assert found.checked == 2
    assert found.max_relative_error == pytest.approx(0.25)
    assert found.cosine_min == pytest.approx(0.96)
    assert found.cosine_mean == pytest.approx(0.98)


def test_few_utterances_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "VERIFIED_UTTERANCES", 2)
    artifact = tiny_artifact(4)
    fast = prepare_fast(artifact, noise_utterances(), tmp_path, max_seconds=4.0, progress=Progress.silent())
    assert fast.verify(emitted(fast.program), "tflite", name="x").checked == 2
