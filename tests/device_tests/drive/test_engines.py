"""Both engines as the driver starts them, on real files of a tiny network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from device_tests.drive.build import host_build
from device_tests.drive.process import HostDevice
from device_tests.drive.run import ModelFile, embed_with_engine, run_on_device
from device_tests.records import EngineRecord, ModelFormat, Protocol
from exporters.pte.emit import emit_pte
from exporters.tflite.emit import emit_tflite
from pipeline.artifact.decode import decode
from pipeline.errors import InputError, VoxPressError
from tests.factories import tiny_artifact

Features = dict[str, np.ndarray]
ENGINE_OF = {"pte": "executorch", "tflite": "litert"}
# Sums of a tiny network's layers in another order than torch's, relative to the embedding's largest value.
TOLERANCE = 1e-5


def features(frames: tuple[int, ...] = (45, 98, 200)) -> Features:
    rng = np.random.default_rng(7)
    return {f"utterance {i}.wav": rng.normal(size=(count, 80)).astype(np.float32) for i, count in enumerate(frames)}


def write_model(path: Path, bits: int, *, stock: bool = False) -> Path:
    artifact, lowering = tiny_artifact(bits), "stock" if stock else "voxpress"
    if path.suffix == ".pte":
        path.write_bytes(emit_pte(artifact, lowering=lowering, max_seconds=4.0))
    else:
        path.write_bytes(emit_tflite(artifact, lowering=lowering))
    return path


def reference(bits: int, inputs: Features) -> Features:
    network = decode(tiny_artifact(bits)).eval()
    with torch.no_grad():
        return {key: network(torch.from_numpy(value)[None])[0].numpy() for key, value in inputs.items()}


# Making a .pte takes torch.export, which takes its time.
FORMATS = [pytest.param("pte", marks=pytest.mark.slow), "tflite"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tflite")
    write_model(folder / "4bit.tflite", 4)
    write_model(folder / "fp32.tflite", 32, stock=True)
    return folder


@pytest.fixture(scope="module")
def pte_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pte")
    write_model(folder / "4bit.pte", 4)
    write_model(folder / "fp32.pte", 32, stock=True)
    return folder


@pytest.mark.parametrize("model_format", FORMATS)
def test_engine_gives_the_artifacts_embeddings(request: pytest.FixtureRequest, model_format: ModelFormat) -> None:
    inputs = features()
    folder: Path = request.getfixturevalue("models" if model_format == "tflite" else "pte_models")
    embeddings, record = embed_with_engine(HostDevice(), folder / f"4bit.{model_format}", inputs)
    for key, expected in reference(4, inputs).items():
        assert np.abs(embeddings[key] - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert record.engine == ENGINE_OF[model_format]
    assert record.utterances == 3
    assert {name.split("_")[0] for name in record.kernels} >= {"conv2d", "statspool"}
    assert 0 < record.resident_before_bytes <= record.resident_after_load_bytes <= record.peak_bytes


@pytest.mark.slow
def test_run_of_both_formats_and_their_controls(models: Path, pte_models: Path, tmp_path: Path) -> None:
    folders: dict[ModelFormat, Path] = {"pte": pte_models, "tflite": models}
    files = [
        ModelFile(folder / f"{bits}.{model_format}", model_format, bits, lowering, is_control=lowering == "stock")
        for bits, lowering in (("fp32", "stock"), ("4bit", "voxpress"))
        for model_format, folder in folders.items()
    ]
    run = run_on_device(
        HostDevice(), files, features(), tmp_path / "out", protocol=Protocol(warmup=1, runs=2, rounds=2)
    )
    by_file = {model.file: model for model in run.models}
    for model in run.models:
        assert len(model.latency_ns) == 4
        assert min(model.latency_ns) > 0
        assert bool(model.kernels) == (model.lowering == "voxpress")
    assert any("xnnpack" in name.lower() for name in by_file["fp32.tflite"].delegates)
    assert any("xnnpack" in name.lower() for name in by_file["fp32.pte"].delegates)
    assert "voxpress" in by_file["4bit.tflite"].delegates


@pytest.mark.parametrize("model_format", ["pte", "tflite"])
def test_foreign_file_is_the_engines_one_line(tmp_path: Path, model_format: ModelFormat) -> None:
    path = tmp_path / f"garbage.{model_format}"
    path.write_bytes(b"not a model, but long enough to be looked at" * 10)
    with pytest.raises(VoxPressError, match=rf"garbage\.{model_format}: expected .*, found ") as caught:
        embed_with_engine(HostDevice(), path, features())
    assert "\n" not in str(caught.value)


def run_litert(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    build = host_build("tflite")
    return subprocess.run(
        [str(build.runner), *build.options(str), "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_litert_speed_mode_writes_no_embeddings(models: Path, tmp_path: Path) -> None:
    save_file(features((30, 28)), tmp_path / "f.safetensors")
    done = run_litert(
        tmp_path / "out",
        *("--model", str(models / "4bit.tflite"), "--features", str(tmp_path / "f.safetensors")),
        *("--skip-accuracy", "--runs", "3", "--warmup", "1", "--speed-frames", "64"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "progress 5 5"
    record = EngineRecord.model_validate_json((tmp_path / "out" / "engine.json").read_text())
    assert (record.utterances, len(record.latency_ns), record.model) == (0, 3, "4bit.tflite")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["engine.json"]


def test_litert_errors_are_one_line(models: Path, tmp_path: Path) -> None:
    model, good, bad = str(models / "4bit.tflite"), tmp_path / "f.safetensors", tmp_path / "bad.safetensors"
    save_file(features((30,)), good)
    save_file({"u": np.zeros((30, 79), np.float32)}, bad)
    for arguments, words in (
        (
            ["--model", str(tmp_path / "none.tflite"), "--features", str(good)],
            "none.tflite: expected a file, found No such file",
        ),
        (["--model", model, "--features", str(tmp_path / "none")], "none: expected a file, found No such file"),
        (["--model", model, "--features", model], "4bit.tflite: expected a whole safetensors file"),
        (["--model", model, "--features", str(bad)], "utterance u: expected features [frames, 80], found [30, 79]"),
        (["--model", model, "--features", str(good), "--runs", "0"], "--runs: expected 1 to 1000000, found 0"),
    ):
        done = run_litert(tmp_path / "out", *arguments)
        lines = done.stderr.splitlines()
        assert done.returncode == 2
        assert len(lines) == 1
        assert words in lines[0]
    assert not (tmp_path / "out").exists()


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"expected a \.pte or \.tflite file, found suffix '\.onnx'"):
        embed_with_engine(HostDevice(), tmp_path / "model.onnx", features())
