"""Programs that take several utterances at once: the same bytes as one by one, at every length, from any address."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_tests.drive.process import HostDevice
from device_tests.drive.run import embed_with_engine
from exporters.export import ExportRequest, export_artifact
from exporters.exported import ExportedFile
from exporters.manifest import Lowering, ModelInput
from exporters.pte.emit import emit_pte
from exporters.pte.run import PteRunner
from exporters.verify import FastReference
from pipeline.errors import InputError, VerificationError
from pipeline.features.fbank import samples_of
from pipeline.features.spec import FrontEndSpec
from tests.factories import noise_program, noise_utterances, speech_like, tiny_artifact

pytestmark = pytest.mark.slow  # torch.export takes its time

BATCH, MAX_SECONDS = 4, 31.0
FRAMES = (30, 98, 200, 301, 3000)


def _exported(
    folder: Path, mode: str, model_input: ModelInput, lowering: Lowering = "voxpress", max_seconds: float = MAX_SECONDS
) -> ExportedFile:
    artifact = tiny_artifact(4)
    fast = None
    if mode == "fast":
        fast = FastReference(artifact, artifact, noise_program(artifact), noise_utterances(), max_seconds=max_seconds)
    request = ExportRequest(artifact, "4bit", "pte", lowering, fast, model_input, max_batch=BATCH)
    return export_artifact(request, folder, max_seconds=max_seconds)


def _utterance(model_input: ModelInput, frames: int) -> np.ndarray:
    if model_input == "waveform":
        return np.tile(speech_like(2.0), 20)[: samples_of(frames, FrontEndSpec())]
    return np.random.default_rng(frames).normal(0, 2, (frames, 80)).astype(np.float32)


@pytest.mark.parametrize(
    ("mode", "model_input"), [("exact", "fbank"), ("exact", "waveform"), ("fast", "fbank"), ("fast", "waveform")]
)
def test_a_batch_is_its_utterances_one_by_one(mode: str, model_input: ModelInput, tmp_path: Path) -> None:
    exported = _exported(tmp_path, mode, model_input)
    assert exported.file.endswith("-batch4.pte")
    runner = PteRunner(tmp_path / exported.file)
    assert (runner.max_batch, runner.manifest.max_batch) == (BATCH, BATCH)
    for frames in FRAMES:
        utterance = _utterance(model_input, frames)
        batch = np.stack([utterance * np.float32(level) for level in (1.0, 0.5, -1.0, 0.25)])
        alone = np.stack([runner.embed(one) for one in batch])
        for count in (BATCH, 3, 1):
            assert runner.embed_batch(batch[:count]).tobytes() == alone[:count].tobytes(), (frames, count)
    found, _ = embed_with_engine(HostDevice(), tmp_path / exported.file, {"u": utterance})
    assert found["u"].tobytes() == alone[0].tobytes()


def test_stock_ops_take_batches_too(tmp_path: Path) -> None:
    runner = PteRunner(tmp_path / _exported(tmp_path, "exact", "fbank", "stock", 4.0).file)
    for frames in FRAMES[:4]:
        batch = np.stack([_utterance("fbank", frames) * np.float32(level) for level in (1.0, 0.5, -1.0, 0.25)])
        alone = np.stack([runner.embed(one) for one in batch])
        np.testing.assert_allclose(runner.embed_batch(batch), alone, rtol=1e-4, atol=1e-5)


def test_more_than_the_model_takes_is_refused(tmp_path: Path) -> None:
    data = emit_pte(tiny_artifact(4), lowering="voxpress", max_seconds=4.0, max_batch=2)
    utterances = np.zeros((3, 98, 80), np.float32)
    with pytest.raises(InputError, match="expected 1 to 2 utterances at once, found 3"):
        PteRunner(data).embed_batch(utterances)


def test_a_batch_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PteRunner.embed_batch

    def mixed(self: PteRunner, utterances: np.ndarray) -> np.ndarray:
        return np.roll(real(self, utterances), 1, axis=0)

    monkeypatch.setattr(PteRunner, "embed_batch", mixed)
    with pytest.raises(VerificationError, match="expected embeddings of 4 utterances at once within 0 of each"):
        _exported(tmp_path, "exact", "fbank", max_seconds=4.0)
    assert not list(tmp_path.iterdir())
