from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from exporters.native import native_path
from tests.exporters.pte.models import (
    LENGTHS,
    MAX_FRAMES,
    MIN_FRAMES,
    Floats,
    fast_pte,
    reference,
    relative_error,
    tiny_pte,
    utterance,
)


def run(model: Path, features: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    fast = ("--warmup", "1", "--runs", "3", "--speed-frames", "60")
    command = [native_path("pte_runner"), "--model", model, "--features", features, "--out", out, *fast, *options]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refused run leaves behind."""
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pte"
    path.write_bytes(tiny_pte(4))
    return path


def write_features(path: Path, features: dict[str, Floats]) -> Path:
    safetensors.numpy.save_file(features, path, metadata={"made": "in a test"})
    return path


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return write_features(tmp_path / "features.safetensors", {f"id1/utt {n}": utterance(n) for n in LENGTHS})


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("bits", [1, 4, 32])
def test_embeddings_equal_the_reference(bits: int, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "tiny.pte"
    model.write_bytes(tiny_pte(bits))
    result = run(model, features, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    embeddings = safetensors.numpy.load_file(tmp_path / "out" / "embeddings.safetensors")
    assert sorted(embeddings) == sorted(f"id1/utt {n}" for n in LENGTHS)
    for frames in LENGTHS:
        expected = reference(bits, utterance(frames))
        assert relative_error(embeddings[f"id1/utt {frames}"], expected) < 1e-5, frames


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_low_memory_runs_from_codes_to_the_same_embeddings(mode: str, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "tiny.pte"
    model.write_bytes(tiny_pte(4) if mode == "exact" else fast_pte())
    found = {}
    for options in ((), ("--low-memory",)):
        result = run(model, features, tmp_path / "out", *options)
        assert result.returncode == 0, result.stderr
        found[options] = safetensors.numpy.load_file(tmp_path / "out" / "embeddings.safetensors")
    kernels = json.loads((tmp_path / "out" / "engine.json").read_text())["kernels"]
    if mode == "exact":
        assert all("_pal_" in name for name in kernels if not name.startswith("statspool")), kernels
    for name, embedding in found[()].items():
        # The exact kernels sum in another order; the integer ones give the same bytes.
        tolerance = 1e-5 * np.abs(embedding).max() if mode == "exact" else 0
        np.testing.assert_allclose(found[("--low-memory",)][name], embedding, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_threads_give_the_same_bytes(mode: str, tmp_path: Path, features: Path) -> None:
    model = tmp_path / "tiny.pte"
    model.write_bytes(tiny_pte(4) if mode == "exact" else fast_pte())
    found = []
    for threads in ("1", "3"):
        result = run(model, features, tmp_path / "out", "--threads", threads)
        assert result.returncode == 0, result.stderr
        found.append((tmp_path / "out" / "embeddings.safetensors").read_bytes())
    assert found[0] == found[1]


def test_stock_model_equals_the_reference(tmp_path: Path, features: Path) -> None:
    model = tmp_path / "stock.pte"
    model.write_bytes(tiny_pte(4, "stock"))
    result = run(model, features, tmp_path / "out", "--threads", "2")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "engine.json").read_text())
    assert (report["kernels"], report["delegates"], report["threads"]) == ([], ["XnnpackBackend"], 2)
    embeddings = safetensors.numpy.load_file(tmp_path / "out" / "embeddings.safetensors")
    for frames in LENGTHS:
        assert relative_error(embeddings[f"id1/utt {frames}"], reference(4, utterance(frames))) < 1e-4, frames


def test_report_holds_what_was_measured(tmp_path: Path, model: Path, features: Path) -> None:
    result = run(model, features, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "engine.json").read_text())
    assert report["engine"] == "executorch"
    assert report["runtime_version"] == "1.5.1"
    assert (report["model"], report["model_bytes"]) == ("tiny.pte", model.stat().st_size)
    assert (report["threads"], report["delegates"], report["utterances"]) == (1, [], len(LENGTHS))
    assert {name.split("_")[0] for name in report["kernels"]} == {"conv2d", "winograd4", "statspool"}
    assert report["kernels"] == sorted(report["kernels"])
    assert len(report["latency_ns"]) == 3
    assert all(value > 0 for value in [*report["latency_ns"], report["load_ns"], report["first_ns"]])
    assert 0 < report["resident_before_bytes"] <= report["peak_bytes"]
    assert 0 < report["resident_after_load_bytes"] <= report["peak_bytes"]
    assert 0 < report["resident_after_run_bytes"] <= report["peak_bytes"]
    steps = 1 + 1 + 3 + len(LENGTHS)
    assert result.stderr.splitlines() == [f"progress {done} {steps}" for done in range(1, steps + 1)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["embeddings.safetensors", "engine.json"]


def test_accuracy_can_be_skipped(tmp_path: Path, model: Path, features: Path) -> None:
    result = run(model, features, tmp_path / "out", "--skip-accuracy")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["engine.json"]
    assert json.loads((tmp_path / "out" / "engine.json").read_text())["utterances"] == 0


def test_a_short_utterance_is_repeated_for_timing(tmp_path: Path, model: Path) -> None:
    features = write_features(tmp_path / "short.safetensors", {"short": utterance(MIN_FRAMES)})
    result = run(model, features, tmp_path / "out", "--speed-frames", str(MAX_FRAMES))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("frames", [MIN_FRAMES - 1, MAX_FRAMES + 1])
def test_an_utterance_beyond_the_limits_is_named(tmp_path: Path, model: Path, frames: int) -> None:
    features = write_features(tmp_path / "f.safetensors", {"good": utterance(60), "bad": utterance(frames)})
    line = refused(run(model, features, tmp_path / "out"))
    assert line == (f"{features}: utterance bad: expected {MIN_FRAMES} to {MAX_FRAMES} frames, found {frames}")
    assert not (tmp_path / "out").exists()


def test_a_timed_length_beyond_the_limits_is_refused(tmp_path: Path, model: Path, features: Path) -> None:
    line = refused(run(model, features, tmp_path / "out", "--speed-frames", str(MAX_FRAMES + 1)))
    assert line.endswith(f"--speed-frames: expected {MIN_FRAMES} to {MAX_FRAMES} frames, found {MAX_FRAMES + 1}")


@pytest.mark.parametrize("shape", [(60, 79), (60,), (1, 60, 80), (0, 80)])
def test_a_misshapen_utterance_is_refused(tmp_path: Path, model: Path, shape: tuple[int, ...]) -> None:
    features = write_features(tmp_path / "f.safetensors", {"bad": np.zeros(shape, np.float32)})
    assert refused(run(model, features, tmp_path / "out")).startswith(f"{features}: utterance bad: expected ")


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9999])
def test_a_truncated_model_is_refused(tmp_path: Path, model: Path, features: Path, part: float) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: int(len(whole) * part)])
    assert refused(run(model, features, tmp_path / "out")).startswith(f"{model}: expected a model that the engine can")


def test_missing_files_are_named(tmp_path: Path, model: Path, features: Path) -> None:
    none = tmp_path / "none"
    assert str(none) in refused(run(none, features, tmp_path / "out"))
    assert refused(run(model, none, tmp_path / "out")) == f"{none}: expected a file, found No such file or directory"
    assert "not a regular file" in refused(run(model, tmp_path, tmp_path / "out"))


@pytest.mark.parametrize("cut", [0, 7, 8, 40, -4, -1])
def test_truncated_features_are_refused(tmp_path: Path, model: Path, features: Path, cut: int) -> None:
    features.write_bytes(features.read_bytes()[:cut])
    assert refused(run(model, features, tmp_path / "out")).startswith(f"{features}: expected a whole safetensors file")


def entry(begin: int = 0, end: int = 320, shape: tuple[int, ...] = (1, 80), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": entry(end=1 << 40)}, "data up to byte 1099511627776"),
        ({"a": entry(end=(1 << 63) - 1)}, "data up to byte 9223372036854775807"),
        ({"a": entry(begin=320, end=0)}, "no range"),
        ({"a": entry(begin=-320, end=0)}, "no counts"),
        ({"a": entry(shape=(1, 81))}, "does not fill"),
        ({"a": entry(shape=(1 << 62, 1 << 62))}, "does not fill"),
        ({"a": entry(shape=(1 << 31, 1 << 31, 1, 80))}, "does not fill"),
        ({"a": entry(dtype="F16", shape=(2, 80))}, "dtype F16"),
        ({"a": entry(), "b": entry()}, "overlaps"),
        ({"a": entry(begin=4, end=320, shape=(79,))}, "hole"),
        ({"a": entry(end=160, shape=(40,))}, "no tensor owns"),
        ({"a": {"dtype": "F32", "shape": [1, 80]}}, "keys"),
        ({"a": entry() | {"more": 1}}, "keys"),
        ({"a": entry() | {"shape": "80"}}, "no list shape"),
        ({"a": 5}, "keys"),
        ([1], "no object"),
        (b'{"a": 1', "not closed"),
        (b'{"a": 1.5}', "keys"),
        ({"a": entry() | {"data_offsets": [0.0, 320]}}, "no counts in data_offsets"),
        (b'{"a": 1.}', "without digits"),
        (b'{"a": 1e999}', "64 bits"),
        (b'{"a": 99999999999999999999}', "64 bits"),
        (b'{"a": 1, "a": 1}', "used twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[" * 100, "too deep"),
        (b"{} {}", "more text"),
        (b"", "no value"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, model: Path, header: Any, reason: str) -> None:
    features = write_raw(tmp_path / "f.safetensors", header, b"\0" * 320)
    line = refused(run(model, features, tmp_path / "out"))
    assert line.startswith(f"{features}: expected a whole safetensors file of F32 tensors, found")
    assert reason in line


@pytest.mark.parametrize("length", [0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 1 << 32, 100])
def test_a_header_length_beyond_the_file_is_refused(tmp_path: Path, model: Path, length: int) -> None:
    features = tmp_path / "f.safetensors"
    features.write_bytes(struct.pack("<Q", length) + b"{}")
    assert f"a header of {length} bytes in a file of 10" in refused(run(model, features, tmp_path / "out"))


def test_no_utterance_is_an_error(tmp_path: Path, model: Path) -> None:
    features = write_raw(tmp_path / "f.safetensors", {"__metadata__": {"made": "in a test"}})
    assert refused(run(model, features, tmp_path / "out")).endswith("expected at least one utterance, found none")


@pytest.mark.parametrize(
    "options", [("--runs", "0"), ("--threads", "x"), ("--warmup", "-1"), ("--unknown", "1"), ("--runs",)]
)
def test_options_are_checked(tmp_path: Path, model: Path, features: Path, options: tuple[str, ...]) -> None:
    assert refused(run(model, features, tmp_path / "out", *options)).startswith(options[0])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, model: Path, features: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    assert refused(run(model, features, blocked)).startswith(f"{blocked}: expected a folder to write to")


def test_names_survive_with_quotes_and_other_scripts(tmp_path: Path, model: Path) -> None:
    names = ['say "hi"', "back\\slash", "話者/発話", "tab\there", "😀"]
    features = write_features(tmp_path / "f.safetensors", {name: utterance(60) for name in names})
    result = run(model, features, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert set(safetensors.numpy.load_file(tmp_path / "out" / "embeddings.safetensors")) == set(names)
