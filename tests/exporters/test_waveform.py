"""Models that take samples, and long audio, through both runtimes and the engines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from device_tests.drive.process import HostDevice
from device_tests.drive.run import embed_with_engine
from device_tests.evaluate import evaluate
from exporters.export import ExportRequest, export_artifact
from exporters.exported import Format
from exporters.long_audio import embed_long
from exporters.manifest import Lowering, ModelInput
from exporters.native import native_path
from exporters.pte.run import PteRunner
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.corpus.read import read_corpus
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import all_pairs_trials, write_trials
from pipeline.errors import InputError
from pipeline.features.fbank import features, max_frames, samples_of
from pipeline.features.spec import FrontEndSpec
from pipeline.progress import Progress
from tests.factories import speech_like, tiny_artifact

pytestmark = pytest.mark.slow  # torch.export takes its time

SPEC = FrontEndSpec()
CHUNK_SECONDS, MAX_SECONDS = 1.5, 2.5
FORMATS: tuple[Format, ...] = ("pte", "tflite")
LENGTHS = (0.3, 1.01, 1.5, 2.0, 3.1, 7.777)


def _request(
    file_format: Format, model_input: ModelInput, chunk_seconds: float | None, lowering: Lowering = "voxpress"
) -> ExportRequest:
    return ExportRequest(
        tiny_artifact(4), "4bit", file_format, lowering, input=model_input, chunk_seconds=chunk_seconds
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for file_format in FORMATS:
        inputs: tuple[ModelInput, ...] = ("fbank", "waveform")
        for model_input in inputs:
            request = _request(file_format, model_input, CHUNK_SECONDS)
            exported = export_artifact(request, folder, max_seconds=MAX_SECONDS)
            assert exported.agreement.max_relative_error < 1e-5
            assert exported.input == model_input
    return folder


def _runner(folder: Path, file_format: Format, model_input: str) -> PteRunner | TfliteRunner:
    name = "tiny-4bit-waveform" if model_input == "waveform" else "tiny-4bit"
    path = folder / f"{name}.{file_format}"
    return PteRunner(path) if file_format == "pte" else TfliteRunner(path)


def _reference(samples: np.ndarray) -> np.ndarray:
    """The policy once more, in plain words."""
    network, mel = decode(tiny_artifact(4)), features(samples, SPEC)
    chunk = max_frames(CHUNK_SECONDS, SPEC)
    parts = [mel]
    if len(mel) > chunk:
        count = int(np.ceil(len(mel) / chunk))
        starts = [int(i * (len(mel) - chunk) / (count - 1)) for i in range(count)]
        parts = [mel[start : start + chunk] - mel[start : start + chunk].mean(axis=0) for start in starts]
    found = [network(torch.from_numpy(part)[None])[0].numpy() for part in parts]
    return found[0] if len(found) == 1 else np.mean([e / np.linalg.norm(e) for e in found], axis=0)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("file_format", FORMATS)
def test_samples_and_features_of_any_length_give_the_references_embedding(
    models: Path, file_format: Format, seconds: float
) -> None:
    samples = speech_like(seconds)
    for model_input, utterance in (("waveform", samples), ("fbank", features(samples, SPEC))):
        runner = _runner(models, file_format, model_input)
        assert runner.input == runner.manifest.input == model_input
        assert runner.manifest.ops.get("voxpress.fbank") == (1 if model_input == "waveform" else None)
        assert _error(embed_long(runner.embed, utterance, runner.manifest), _reference(samples)) < 1e-4


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_engines_do_the_same(models: Path, file_format: Format) -> None:
    samples = {f"{seconds}": speech_like(seconds) for seconds in LENGTHS}
    mel = {name: features(value, SPEC) for name, value in samples.items()}
    for name, inputs in (("tiny-4bit-waveform", samples), ("tiny-4bit", mel)):
        embeddings, record = embed_with_engine(HostDevice(), models / f"{name}.{file_format}", inputs)
        for key, value in samples.items():
            assert _error(embeddings[key], _reference(value)) < 1e-4, key
        assert ("fbank_f32_none_1x1_portable" in record.kernels) == (name == "tiny-4bit-waveform")


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_wrong_kind_of_input_is_refused_in_one_line(models: Path, file_format: Format, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        _runner(models, file_format, "waveform").embed(features(speech_like(1.0), SPEC))
    with pytest.raises(InputError, match="expected"):
        _runner(models, file_format, "fbank").embed(speech_like(1.0))
    with pytest.raises(InputError):
        _runner(models, file_format, "waveform").embed(speech_like(1.0)[:399])
    if file_format == "pte":
        save_file({"u": features(speech_like(1.0), SPEC)}, tmp_path / "features.safetensors")
        command = [native_path("pte_runner"), "--model", models / "tiny-4bit-waveform.pte", "--out", tmp_path / "out"]
        command += ["--features", tmp_path / "features.safetensors"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.strip().endswith("utterance u: expected samples [S], found [98, 80]")


@pytest.mark.parametrize("file_format", FORMATS)
def test_evaluate_takes_both(models: Path, file_format: Format, tmp_path: Path) -> None:
    make_synthetic_corpus(
        tmp_path / "voices", speakers=3, seed=1, sessions=1, utterances_per_session=2, seconds=(0.5, 1.9)
    )
    write_trials(all_pairs_trials(read_corpus(tmp_path / "voices")), tmp_path / "trials.txt")
    thresholds = []
    for name in ("tiny-4bit", "tiny-4bit-waveform"):
        (result,) = evaluate(
            models / f"{name}.{file_format}",
            audio=tmp_path / "voices",
            trials_file=tmp_path / "trials.txt",
            progress=Progress.silent(),
        )
        thresholds.append(result.evaluation.threshold)
    assert thresholds[0] == pytest.approx(thresholds[1], abs=1e-4)


def test_ten_minutes_in_bounded_memory(models: Path, tmp_path: Path) -> None:
    ten_minutes = {"long": np.tile(speech_like(10.0), 60), "short": speech_like(1.0)}
    for file_format in FORMATS:
        embeddings, record = embed_with_engine(HostDevice(), models / f"tiny-4bit-waveform.{file_format}", ten_minutes)
        assert _error(embeddings["long"], _reference(ten_minutes["long"])) < 1e-4
        silence = {"short": np.zeros_like(ten_minutes["long"])[:16000]}
        _, alone = embed_with_engine(HostDevice(), models / f"tiny-4bit-waveform.{file_format}", silence)
        # The recording itself may be in memory, mapped by the runner, twice as safetensors reads it in Python. In one
        # pass this network's first layer alone would take 96 MB, and a ResNet34's 614 MB.
        extra = record.peak_bytes - alone.peak_bytes
        assert extra < 2.2 * ten_minutes["long"].nbytes, (file_format, extra)


@pytest.mark.parametrize("seconds", [0.1, 3.0])
def test_a_chunk_beyond_the_models_limits_is_refused(seconds: float, tmp_path: Path) -> None:
    request = _request("tflite", "fbank", seconds)
    with pytest.raises(InputError, match=r"--chunk-seconds: expected 0\.3 to 2\.5"):
        export_artifact(request, tmp_path, max_seconds=MAX_SECONDS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_format", FORMATS)
def test_stock_ops_cannot_make_features(file_format: Format, tmp_path: Path) -> None:
    request = _request(file_format, "waveform", None, "stock")
    with pytest.raises(InputError, match="--input waveform: expected a model with VoxPress ops"):
        export_artifact(request, tmp_path, max_seconds=MAX_SECONDS)
    assert not list(tmp_path.iterdir())


def test_without_a_policy_a_pte_refuses_what_is_too_long_and_a_tflite_takes_it(tmp_path: Path) -> None:
    for file_format in FORMATS:
        request = _request(file_format, "waveform", None)
        export_artifact(request, tmp_path, max_seconds=MAX_SECONDS)
    longest = samples_of(max_frames(MAX_SECONDS, SPEC) + 1, SPEC) - 1
    runner = PteRunner(tmp_path / "tiny-4bit-waveform.pte")
    assert runner.embed(speech_like(3.0)[:longest]).shape == (16,)
    with pytest.raises(InputError, match=r"waveform: expected \[4720\.\.40079\], found \[40080\]"):
        runner.embed(speech_like(3.0)[: longest + 1])
    assert TfliteRunner(tmp_path / "tiny-4bit-waveform.tflite").embed(speech_like(3.0)).shape == (16,)
