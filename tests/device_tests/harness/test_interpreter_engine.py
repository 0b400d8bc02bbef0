"""The engine for .tflite files on TFLite's own interpreter (its C interface), which apps with LiteRT 1 have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from device_tests.drive.build import host_build
from device_tests.records import EngineRecord, read_embeddings
from exporters.tflite.emit import emit_tflite
from tests.device_tests.interpreter import interpreter_library
from tests.factories import tiny_artifact

INTERPRETER = interpreter_library()
LITERT = host_build("tflite").runtime


def run(model: Path, features: Path, out: Path, *words: str, environment: dict[str, str] | None = None) -> str:
    """Runs the runner; returns what it says of its failure, "" if it has none."""
    build = host_build("tflite")
    options = ["--model", model, "--features", features, "--out", out, "--warmup", "0", "--runs", "1"]
    command = [build.runner, *options, "--delegate-library", build.delegate, *words]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=variables)
    if done.returncode == 0:
        return ""
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def embeddings(model: Path, features: Path, out: Path, *words: str, runtime: Path | None) -> dict[str, np.ndarray]:
    assert run(model, features, out, "--runtime-library", str(runtime), *words) == ""
    return dict(read_embeddings(out / "embeddings.safetensors"))


@pytest.fixture
def features(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    path = tmp_path / "features.safetensors"
    save_file({f"u{n}": rng.normal(size=(n, 80)).astype(np.float32) for n in (30, 31, 30 + 64, 200)}, path)
    return path


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("words", [(), ("--low-memory",)], ids=["packed", "low memory"])
def test_both_runtimes_give_the_same_bits(tmp_path: Path, features: Path, bits: int, words: tuple[str, ...]) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(emit_tflite(tiny_artifact(bits), lowering="voxpress"))
    found = embeddings(model, features, tmp_path / "one", *words, runtime=INTERPRETER)
    expected = embeddings(model, features, tmp_path / "two", *words, runtime=LITERT)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    record = EngineRecord.model_validate_json((tmp_path / "one" / "engine.json").read_text())
    assert (record.engine, record.runtime_version, record.delegates) == ("litert", "2.17.1", ("voxpress",))
    assert {name.split("_")[0] for name in record.kernels} >= {"conv2d", "statspool"}


def test_files_of_stock_ops_run_too(tmp_path: Path, features: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(emit_tflite(tiny_artifact(4), lowering="stock"))
    found = embeddings(model, features, tmp_path / "one", runtime=INTERPRETER)
    expected = embeddings(model, features, tmp_path / "two", runtime=LITERT)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * np.abs(value).max())


def test_waveform_files_take_samples(tmp_path: Path) -> None:
    model, samples = tmp_path / "model.tflite", tmp_path / "samples.safetensors"
    model.write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress", model_input="waveform"))
    rng = np.random.default_rng(1)
    save_file({f"u{n}": (0.1 * rng.normal(size=n)).astype(np.float32) for n in (8000, 12345)}, samples)
    found = embeddings(model, samples, tmp_path / "one", runtime=INTERPRETER)
    expected = embeddings(model, samples, tmp_path / "two", runtime=LITERT)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_library_of_a_known_name_is_found(tmp_path: Path, features: Path) -> None:
    """As in an app with LiteRT 1's AAR, which says nothing about its runtime."""
    model, apps = tmp_path / "model.tflite", tmp_path / "lib"
    model.write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    apps.mkdir()
    line = run(model, features, tmp_path / "none")
    assert line.startswith(f"{model}: expected a model that the engine can load, found no runtime for .tflite files (")
    for name in ("libtensorflowlite_jni.so", "libLiteRt.so", "libtensorflowlite_c.so"):
        assert f"{name}: a library that does not load" in line
    shutil.copy(INTERPRETER, apps / "libtensorflowlite_jni.so")
    assert run(model, features, tmp_path / "found", environment={"LD_LIBRARY_PATH": str(apps)}) == ""


def test_what_the_interpreter_says_is_in_the_error(tmp_path: Path, features: Path) -> None:
    data = emit_tflite(tiny_artifact(4), lowering="voxpress")
    model = tmp_path / "model.tflite"
    cases = {
        data.replace(b"voxpress.conv2d", b"unknown1.conv2d"): "unknown1.conv2d",
        data[:100]: "no .tflite file that this runtime reads",
        data.replace(b'"min_frames"', b'"nim_frames"'): "a manifest without min_frames, max_frames or frontend",
    }
    for content, reason in cases.items():
        assert content != data
        model.write_bytes(content)
        line = run(model, features, tmp_path / "out", "--runtime-library", str(INTERPRETER))
        assert line.startswith(f"{model}: expected a model that the engine can load, found ")
        assert reason in line
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_are_refused_or_run(tmp_path: Path, features: Path, seed: int) -> None:
    """Metadata is found by offsets in the file: no damage to them leads outside of it."""
    data = bytearray(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    rng = np.random.default_rng(seed)
    # The tables lie before and behind the weights: half of the damage at either end.
    for _ in range(4):
        end = int(rng.integers(min(4096, len(data))))
        data[end if rng.random() < 0.5 else len(data) - 1 - end] = int(rng.integers(256))
    model = tmp_path / "model.tflite"
    model.write_bytes(data)
    run(model, features, tmp_path / "out", "--runtime-library", str(INTERPRETER))
