"""Several programs that share their weights in a .ptd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_tests.drive.process import HostDevice
from device_tests.drive.run import embed_with_engine
from exporters.export import ExportRequest, export_artifact, prepare_fast
from exporters.manifest import ModelInput
from exporters.pte.emit import weights_file_name
from exporters.pte.run import PteRunner
from pipeline.errors import InputError, VoxPressError
from pipeline.features.fbank import features
from pipeline.features.spec import FrontEndSpec
from pipeline.progress import Progress
from tests.factories import noise_utterances, speech_like, tiny_artifact

pytestmark = pytest.mark.slow  # torch.export takes its time

INPUTS: tuple[ModelInput, ...] = ("fbank", "waveform")


def _request(model_input: ModelInput, seed: int = 0, **options: object) -> ExportRequest:
    artifact = tiny_artifact(4, seed=seed)
    arguments = {"format": "pte", "lowering": "voxpress", "input": model_input, "split_weights": True, **options}
    return ExportRequest(artifact, "4bit", **arguments)  # type: ignore[arg-type]


def test_programs_share_one_weights_file_and_give_the_same_embeddings(tmp_path: Path) -> None:
    for model_input in INPUTS:
        exported = export_artifact(_request(model_input), tmp_path, max_seconds=4.0)
        assert exported.agreement.max_relative_error < 1e-5
    weights = tmp_path / weights_file_name(tiny_artifact(4))
    assert sorted(tmp_path.glob("*.ptd")) == [weights]
    samples = speech_like(1.5)
    inputs = {"tiny-4bit-split.pte": features(samples, FrontEndSpec()), "tiny-4bit-waveform-split.pte": samples}
    found = {}
    for name, utterance in inputs.items():
        codes = [layer.codes.tobytes() for layer in tiny_artifact(4).layers.values() if layer.codes is not None]
        for place, there in ((weights, True), (tmp_path / name, False)):
            assert all((one in place.read_bytes()) == there for one in codes)
        runner = PteRunner(tmp_path / name)
        assert runner.manifest.weights_file == weights.name
        found[name] = runner.embed(utterance)
        engine, _ = embed_with_engine(HostDevice(), tmp_path / name, {"u": utterance})
        np.testing.assert_array_equal(engine["u"], found[name])
    np.testing.assert_allclose(*found.values(), rtol=1e-4, atol=1e-5)

    weights.rename(tmp_path / "elsewhere.ptd")
    with pytest.raises(InputError, match=r"expected its weights in .*\.ptd, found no such file"):
        PteRunner(tmp_path / "tiny-4bit-split.pte")
    with pytest.raises(VoxPressError, match="the weights file"):
        embed_with_engine(HostDevice(), tmp_path / "tiny-4bit-split.pte", {"u": inputs["tiny-4bit-split.pte"]})
    embedding = PteRunner(tmp_path / "tiny-4bit-split.pte", tmp_path / "elsewhere.ptd").embed(
        inputs["tiny-4bit-split.pte"]
    )
    np.testing.assert_array_equal(embedding, found["tiny-4bit-split.pte"])

    weights.write_bytes(b"something else")
    with pytest.raises(InputError, match="found other bytes under their name"):
        export_artifact(_request("fbank"), tmp_path, max_seconds=4.0)


def test_both_modes_share_one_weights_file(tmp_path: Path) -> None:
    artifact, utterances = tiny_artifact(4), noise_utterances()
    fast = prepare_fast(artifact, utterances, tmp_path, max_seconds=4.0, progress=Progress.silent())
    requests = [_request(model_input, fast=mode) for mode in (None, fast) for model_input in INPUTS]
    for request in requests:
        export_artifact(request, tmp_path, max_seconds=4.0)
        whole = replace(request, split_weights=False)
        export_artifact(whole, tmp_path, max_seconds=4.0)
        samples = speech_like(1.5)
        utterance = samples if request.input == "waveform" else features(samples, FrontEndSpec())
        split, unsplit = (PteRunner(tmp_path / one.file_name).embed(utterance) for one in (request, whole))
        assert split.tobytes() == unsplit.tobytes()
    assert [path.name for path in tmp_path.glob("*.ptd")] == [weights_file_name(artifact)]
    # The palettes of mode fast are others; they lie in the .pte.
    assert weights_file_name(fast.rounded) == weights_file_name(artifact)
    assert any((fast.rounded.layers[name].palette != layer.palette).any() for name, layer in artifact.layers.items())


def test_weights_of_another_artifact_have_another_name() -> None:
    assert weights_file_name(tiny_artifact(4)) != weights_file_name(tiny_artifact(4, seed=1))


@pytest.mark.parametrize("options", [{"format": "tflite"}, {"lowering": "stock"}])
def test_what_cannot_be_split_is_refused(options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--split-weights: expected a \.pte with VoxPress ops"):
        export_artifact(_request("fbank", **options), tmp_path, max_seconds=4.0)
