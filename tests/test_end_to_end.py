"""The whole main job on a tiny embedded corpus, from the command a user types."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from calibration.ranges import read_ranges
from device_tests.evaluate import evaluate
from device_tests.records import read_run
from device_tests.report.build import read_report
from exporters.bundle import GOLDEN_EMBEDDINGS, GOLDEN_FBANK, GOLDEN_WAV, checked_file, verify_bundle
from exporters.pte.run import PteRunner
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.store import read_artifact
from pipeline.corpus.audio import read_utterance
from pipeline.errors import InputError
from pipeline.features.fbank import features
from pipeline.progress import Progress

pytestmark = pytest.mark.slow

RECIPE = """
name = "tiny"
seed = 1
[corpus]
heldout_share = 0.4
[corpus.synthetic]
speakers = 8
sessions = 1
utterances_per_session = 3
[model]
architecture = "resnet10"
base_channels = 4
embedding_dim = 16
[pretrain]
steps = {steps}
batch = 8
crop_frames = 60
optimizer = "adamw"
lr = 0.005
checkpoint_seconds = 0.01
precision = "32-true"
[uniform]
bits = [4, 1]
[uniform.finetune]
steps = 6
batch = 8
crop_frames = 60
lr = 0.001
precision = "32-true"
[export]
max_seconds = 6.0
fallback = ["4bit"]
modes = ["exact", "fast"]
[device_test]
runs = 2
rounds = 2
speed_frames = 60
"""
NET = "resnet10-c4"
FILES = {
    f"{NET}-{label}.{suffix}"
    for label in ("fp32", "4bit", "4bit-fast", "4bit-fallback", "1bit", "1bit-fast")
    for suffix in ("pte", "tflite")
}
RANGES = {f"{NET}-{label}-activations.json" for label in ("4bit", "1bit")}


def _run(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "run",
        str(folder / "tiny.toml"),
        "--out",
        str(folder / "out"),
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.toml").write_text(RECIPE.format(steps=30))
    _run(folder)
    return folder


def test_every_file_is_written_and_named_by_width_and_format(run_folder: Path) -> None:
    exported = {path.name for path in (run_folder / "out" / "export").iterdir()}
    assert exported == FILES | RANGES | {"exports.json", "stamp.json"}
    assert {path.name for path in (run_folder / "out").iterdir()} == {
        "voices", "corpus", "pretrain", "uniform", "export", "device-test", "bundle", ".work"
    }  # fmt: skip


def test_the_device_gives_the_references_embeddings_and_error_rates(run_folder: Path) -> None:
    report = read_report(run_folder / "out" / "device-test")
    run = read_run(run_folder / "out" / "device-test")
    assert {model.file for model in run.models} == FILES
    for entry in json.loads((run_folder / "out" / "export" / "exports.json").read_text()):
        assert entry["mode"] == ("fast" if "fast" in entry["file"] else "exact")
        found = entry["agreement"]
        assert found["cosine_min"] >= 0.99, entry["file"]
        assert entry["mode"] == "fast" or found["max_relative_error"] <= 1e-4, entry["file"]
    text = (run_folder / "out" / "device-test" / "report.md").read_text()
    for name in FILES:
        assert name in text or name.removeprefix(f"{NET}-") in text
    assert report.models
    assert "<svg" in (run_folder / "out" / "device-test" / "report.html").read_text()


def test_our_ops_ran_where_the_file_has_them(run_folder: Path) -> None:
    for model in read_run(run_folder / "out" / "device-test").models:
        assert bool(model.kernels) == (model.lowering == "voxpress"), model.file


def test_a_second_run_does_nothing(run_folder: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (run_folder / "out").rglob("stamp.json")}
    assert len(stamps) == 8
    done = _run(run_folder)
    assert done.stderr.count("unchanged") == 8
    assert {path: path.stat().st_mtime_ns for path in (run_folder / "out").rglob("stamp.json")} == stamps


def test_a_damaged_stage_is_done_again_and_nothing_else(run_folder: Path) -> None:
    weights = run_folder / "out" / "uniform" / "1bit" / "weights.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1])
    done = _run(run_folder, "--until", "uniform")
    assert "[uniform/1bit] unchanged" not in done.stderr
    assert done.stderr.count("unchanged") == 4
    assert weights.read_bytes() == before  # the same settings and seed give the same artifact


def test_the_bundle_is_whole_and_its_golden_vectors_hold(run_folder: Path) -> None:
    folder = run_folder / "out" / "bundle" / f"{NET}-0.1.0"
    manifest = verify_bundle(folder)
    assert {Path(model.file).name for model in manifest.models} == FILES
    spec = manifest.frontend
    golden = load_file(folder / GOLDEN_FBANK)["fbank"]
    samples = read_utterance(folder / GOLDEN_WAV, spec.sample_rate_hz, spec.min_seconds)
    np.testing.assert_array_equal(features(samples, spec), golden)
    embeddings = load_file(folder / GOLDEN_EMBEDDINGS)
    for model in manifest.models:
        path = checked_file(folder, manifest, model.file)
        runner = PteRunner(path) if model.format == "pte" else TfliteRunner(path)
        wanted, found = embeddings[model.label], runner.embed(golden)
        if model.mode == "fast":
            assert found @ wanted >= 0.99 * np.linalg.norm(found) * np.linalg.norm(wanted), model.file
        else:
            assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max(), model.file


def test_activation_ranges_travel_with_the_artifact_in_the_bundle(run_folder: Path) -> None:
    folder = run_folder / "out" / "bundle" / f"{NET}-0.1.0" / "artifacts" / "4bit"
    assert read_ranges(folder / "activations.json", read_artifact(folder)).utterances >= 4


def test_fast_files_are_the_same_network_in_both_runtimes(run_folder: Path) -> None:
    folder = run_folder / "out" / "device-test" / "embeddings"
    for label in ("4bit", "1bit"):
        pte, tflite = (load_file(folder / f"{NET}-{label}-fast.{suffix}.safetensors") for suffix in ("pte", "tflite"))
        for utterance, embedding in pte.items():
            assert embedding.tobytes() == tflite[utterance].tobytes(), utterance


def test_kernels_of_fast_files_are_named_and_portable_ones_noted(run_folder: Path) -> None:
    run = read_run(run_folder / "out" / "device-test")
    for model in run.models:
        assert model.mode == ("fast" if "fast" in model.file else "exact")
        if model.mode == "fast":
            assert any("_u8" in kernel for kernel in model.kernels), model.kernels
        portable = [note for note in run.notes if note.startswith(f"{model.file} was run by portable code: ")]
        assert bool(portable) == bool(model.portable_kernels)


def test_a_changed_byte_in_the_bundle_is_found(run_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(run_folder / "out" / "bundle" / f"{NET}-0.1.0", tmp_path / "b")
    model = folder / "models" / f"{NET}-4bit.pte"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(InputError, match=r"4bit\.pte: expected sha256"):
        verify_bundle(folder)


def test_evaluate_agrees_between_every_kind_of_model(run_folder: Path) -> None:
    out = run_folder / "out"
    heldout = [line.split() for line in (out / "corpus" / "trials.txt").read_text().splitlines()]
    trials = run_folder / "trials.txt"
    trials.write_text("".join(f"{label} {one} {two}\n" for label, one, two in heldout))

    def eers(model: Path) -> dict[str, float]:
        results = evaluate(model, audio=out / "voices", trials_file=trials, progress=Progress())
        return {result.model: result.evaluation.eer for result in results}

    torch.set_num_threads(1)
    (reference,) = eers(out / "uniform" / "4bit").values()
    stored = json.loads((out / "uniform" / "4bit" / "evaluation.json").read_text())["eer"]
    assert reference == pytest.approx(stored, abs=1e-9)
    for suffix in ("pte", "tflite"):
        (found,) = eers(out / "export" / f"{NET}-4bit.{suffix}").values()
        assert found == pytest.approx(reference, abs=1e-9)
    (fp32,) = eers(out / "pretrain").values()
    bundle = eers(out / "bundle" / f"{NET}-0.1.0.zip")
    assert bundle.keys() == FILES
    assert bundle[f"{NET}-4bit.pte"] == pytest.approx(reference, abs=1e-9)
    assert bundle[f"{NET}-fp32.tflite"] == pytest.approx(fp32, abs=1e-9)


def test_codes_are_packed_in_the_artifact(run_folder: Path) -> None:
    assert read_artifact(run_folder / "out" / "uniform" / "1bit").bits_per_weight == 1
    fp32 = (run_folder / "out" / "export" / f"{NET}-fp32.tflite").stat().st_size
    one = (run_folder / "out" / "export" / f"{NET}-1bit.tflite").stat().st_size
    assert one < 0.25 * fp32


def test_a_run_killed_in_training_goes_on_to_the_same_weights(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE.format(steps=30))
    command = [sys.executable, "-m", "pipeline.cli", "run", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]
    checkpoint = tmp_path / "out" / ".work" / "pretrain" / "checkpoint.pt"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert checkpoint.exists(), "training ended before it could be killed"
    assert not (tmp_path / "out" / "pretrain").exists()
    _run(tmp_path, "--until", "pretrain")
    one, two = (folder / "out" / "pretrain" / "model.safetensors" for folder in (run_folder, tmp_path))
    assert one.read_bytes() == two.read_bytes()
    assert not list((tmp_path / "out").glob(".*partial*"))
