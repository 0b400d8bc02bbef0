"""A tiny bundle of both formats on the host, under the aarch64 emulator and through adb, and what the gates catch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from calibration.record import read_calibration
from device_tests.bundle_run import SpeechChoice, prepared_bundle, report_run, run_bundle
from device_tests.drive.build import host_build
from device_tests.drive.device import Device
from device_tests.drive.process import CROSS_ROOT, EMULATOR, EmulatedDevice, HostDevice
from device_tests.gates import Verdicts
from device_tests.history import read_trend
from device_tests.records import Protocol, RunRecord, read_run
from device_tests.report.figures import Report
from device_tests.report.matrix import build_matrix
from pipeline.cli import app
from pipeline.errors import InputError
from pipeline.progress import Progress
from tests.conftest import NEEDS_TOOL
from tests.device_tests.bundles import FILES, altered_bundle
from tests.device_tests.drive.adb_device_end import DeviceEnd, adb_client, adb_is_here
from tests.device_tests.released import bundled, make_voices, write_tiny

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(warmup=0, runs=2, rounds=1, speed_frames=40)
# Timings of a tiny network on a busy machine are not what these tests are about.
GATES = """
[all]
min_runs = 1
min_rounds = 1
p90_ratio = 1000
[all.fast] # of 15 trials between noises one that flips is 7 %
eer_difference = 1
min_dcf_difference = 1
flips_share = 0.2
[all.file_ratio]
4bit = 0.3
[android]
kernels = ["avx512vnni", "avx512", "avx2", "neondot", "neon"] # the tests' phone is this machine
"""


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> SpeechChoice:
    """Half a second of noise, coloured otherwise for each of three speakers."""
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    names = []
    for speaker in range(3):
        for utterance in range(2):
            name = f"s{speaker}/u{utterance}.wav"
            (folder / f"s{speaker}").mkdir(exist_ok=True)
            noise = rng.normal(0, 0.1, 8000)
            coloured = np.convolve(noise, np.ones(2 + 6 * speaker) / (2 + 6 * speaker), "same")
            soundfile.write(folder / name, coloured.astype(np.float32), 16000)
            names.append(name)
    lines = [f"{int(a[:2] == b[:2])} {a} {b}\n" for i, a in enumerate(names) for b in names[i + 1 :]]
    (folder / "trials.txt").write_text("".join(lines))
    return SpeechChoice(folder, folder / "trials.txt")


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gates") / "gates.toml"
    path.write_text(GATES)
    return path


def run(device: Device, bundle: Path, out: Path, speech: SpeechChoice, only: tuple[str, ...] = ()) -> RunRecord:
    with prepared_bundle(bundle, speech, Progress.silent(), only) as prepared:
        return run_bundle(device, prepared, out, protocol=PROTOCOL, progress=Progress.silent())


@pytest.fixture(scope="module")
def on_host(bundle: Path, speech: SpeechChoice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("host")
    run(HostDevice(), bundle, out, speech)
    return out


def assert_same_embeddings(one: Path, other: Path) -> None:
    """Those of two runs' folders, to 1e-4 of the largest value."""
    for file in FILES:
        here, there = (load_file(folder / f"embeddings/{file}.safetensors") for folder in (one, other))
        assert here.keys() == there.keys()
        for name, value in here.items():
            assert np.abs(there[name] - value).max() <= 1e-4 * np.abs(value).max(), (file, name)


def failed(verdicts: Verdicts) -> set[tuple[str, str]]:
    return {(one.subject, one.gate) for one in verdicts.failed}


def test_the_host_passes(on_host: Path, gates: Path) -> None:
    report, verdicts = report_run(on_host, gates)
    assert failed(verdicts) == set()
    assert {model.file for model in report.models} == set(FILES)
    assert report.front_end_difference is not None
    assert report.front_end_difference < 1e-6
    assert any("has no calibrated threshold at the EER for them" in note for note in report.notes)
    for model in report.models:
        assert model.golden_relative_error is not None
        assert model.golden_relative_error < 1e-5
    assert "passed" in (on_host / "report.html").read_text()
    assert 'failures="0"' in (on_host / "junit.xml").read_text()


@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"{NEEDS_TOOL}qemu-user-static")
@pytest.mark.skipif(not CROSS_ROOT.is_dir(), reason=f"{NEEDS_TOOL}g++-aarch64-linux-gnu")
def test_aarch64_gives_the_hosts_embeddings_and_passes(
    bundle: Path, speech: SpeechChoice, on_host: Path, gates: Path, tmp_path: Path
) -> None:
    record = run(EmulatedDevice(), bundle, tmp_path / "run", speech)
    assert_same_embeddings(on_host, tmp_path / "run")
    report, verdicts = report_run(tmp_path / "run", gates)
    assert failed(verdicts) == set()
    assert not report.latency_valid
    assert {one.gate for one in verdicts.results if one.verdict == "not judged"} >= {"validity"}
    for model in record.models:
        assert model.accuracy.machine.architecture == "aarch64"
        assert {name.rpartition("_")[2] for name in model.kernels if name.startswith("conv")} <= {"neon", "neondot"}
        assert bool(model.kernels) == (model.lowering == "voxpress")
    host, host_verdicts = report_run(on_host, gates)
    matrix = build_matrix([(host, host_verdicts), (report, verdicts)], tmp_path / "matrix")
    assert [cell.latency_ratio is None for cell in matrix.cells] == [False] * len(FILES) + [True] * len(FILES)
    page = (tmp_path / "matrix" / "matrix.html").read_text()
    assert "qemu-aarch64" in page
    assert "<svg" in page
    assert "http" not in page.split("<body>")[-1]


@pytest.mark.skipif(not adb_is_here(), reason=f"{NEEDS_TOOL}adb")
def test_adb_devices_in_parallel_from_the_command_line(
    bundle: Path, speech: SpeechChoice, on_host: Path, gates: Path, tmp_path: Path
) -> None:
    with adb_client(tmp_path / "home"), DeviceEnd(tmp_path / "a") as one, DeviceEnd(tmp_path / "b") as two:
        for end in (one, two):
            subprocess.run(["adb", "connect", end.serial], capture_output=True, check=True, timeout=30)
        command = [sys.executable, "-m", "pipeline.cli", "device", "run", str(bundle), "--device", "adb:*"]
        command += ["--build", "host", "--audio", str(speech.audio), "--trials", str(speech.trials)]
        command += ["--gates", str(gates), "--warmup", "0", "--runs", "2", "--rounds", "1", "--speed-frames", "40"]
        command += ["--out", str(tmp_path / "runs"), "--history", str(tmp_path / "h.sqlite"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        assert {found["report"]["device"] for found in results} == {f"adb:{one.serial}", f"adb:{two.serial}"}
        for folder in (tmp_path / "runs" / "tiny-0.1.0").iterdir():
            assert_same_embeddings(on_host, folder)
        rows = read_trend(tmp_path / "h.sqlite").rows
        assert {(row.device, row.file) for row in rows} == {
            (f"adb:{end.serial}", file) for end in (one, two) for file in FILES
        }


def test_a_changed_file_of_a_bundle_is_not_run(bundle: Path, speech: SpeechChoice, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    model = copy / "models" / "tiny-4bit.tflite"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 0x55
    model.write_bytes(data)
    with pytest.raises(InputError, match=r"tiny-4bit\.tflite: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        run(HostDevice(), copy, tmp_path / "out", speech)
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_fails_parity(bundle: Path, speech: SpeechChoice, gates: Path, tmp_path: Path) -> None:
    def swap_palette_values(folder: Path) -> None:
        # Damage that the file survives: a palette's values in another order.
        path = folder / "models" / "tiny-4bit.tflite"
        palette = load_file(folder / "artifacts" / "4bit" / "weights.safetensors")["block.conv2.palette"]
        data = path.read_bytes()
        assert data.count(palette.tobytes()) == 1
        path.write_bytes(data.replace(palette.tobytes(), palette[::-1].tobytes()))

    damaged = altered_bundle(bundle, tmp_path, swap_palette_values)
    run(HostDevice(), damaged, tmp_path / "out", speech, ("tiny-fp32.tflite", "tiny-4bit.tflite"))
    _, verdicts = report_run(tmp_path / "out", gates)
    assert failed(verdicts) >= {("tiny-4bit.tflite", "embeddings"), ("tiny-4bit.tflite", "golden embedding")}
    assert {subject for subject, _ in failed(verdicts)} == {"tiny-4bit.tflite"}


def test_a_wrong_front_end_fails_its_own_gate(bundle: Path, speech: SpeechChoice, gates: Path, tmp_path: Path) -> None:
    def other_window(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["frontend"]["window"] = "povey"
        (folder / "manifest.json").write_text(json.dumps(manifest))

    wrong = altered_bundle(bundle, tmp_path, other_window)
    run(HostDevice(), wrong, tmp_path / "out", speech, ("tiny-4bit.tflite",))
    report, verdicts = report_run(tmp_path / "out", gates)
    assert failed(verdicts) == {("run", "front end")}
    assert report.front_end_difference is not None
    assert report.front_end_difference > 0.01


def test_a_slowed_kernel_is_not_a_valid_timing(
    bundle: Path, speech: SpeechChoice, gates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXPRESS_KERNELS", "portable")
    run(HostDevice(), bundle, tmp_path / "out", speech, ("tiny-fp32.tflite", "tiny-4bit.tflite"))
    _, verdicts = report_run(tmp_path / "out", gates)
    assert failed(verdicts) == {("tiny-4bit.tflite", "validity")}
    assert "_portable" in verdicts.failed[0].found
    notes = json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert [note for note in notes if note.startswith("tiny-4bit.tflite was run by portable code: ")]


def test_a_slowed_kernel_fails_its_ratio(bundle: Path, speech: SpeechChoice, tmp_path: Path, gates: Path) -> None:
    slow = tmp_path / "slow_runner"
    build = host_build("tflite")
    # As slow as a kernel that has lost its vector code: the engine's own times, tenfold.
    slow.write_text(
        f"""#!/bin/sh
{build.runner} "$@" || exit $?
while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; [ "$1" = --model ] && model=$2; shift; done
case "$model" in *4bit*) exec {sys.executable} -c '
import json, sys
path = sys.argv[1] + "/engine.json"
record = json.load(open(path))
record["latency_ns"] = [10 * value for value in record["latency_ns"]]
json.dump(record, open(path, "w"))' "$out" ;; esac
"""
    )
    slow.chmod(0o755)
    only = ("tiny-fp32.tflite", "tiny-4bit.tflite")
    run(HostDevice(), bundle, tmp_path / "well", speech, only)
    usual, _ = report_run(tmp_path / "well", gates)
    ratio = next(model.latency.ratio for model in usual.models if model.file == "tiny-4bit.tflite")
    assert ratio is not None
    limits = tmp_path / "limits.toml"
    entry = f'[host.ratio."4bit.tflite"]\nexpected = {ratio}\ntolerance = {3 * ratio}\nspread = {ratio}\nruns = 2\n'
    limits.write_text(GATES + entry)
    device = HostDevice(builds=lambda model_format: replace(host_build(model_format), runner=slow))
    run(device, bundle, tmp_path / "slow", speech, only)
    _, verdicts = report_run(tmp_path / "slow", limits)
    assert failed(verdicts) == {("tiny-4bit.tflite", "latency ratio")}


def test_one_artifact_is_judged_at_its_own_threshold_and_has_no_control(tmp_path: Path, gates: Path) -> None:
    voices, artifact, calibration = make_voices(tmp_path), write_tiny(tmp_path / "4bit"), tmp_path / "calibration"
    words = ["calibrate", str(artifact), "--out", str(calibration), "--audio", str(voices.audio)]
    done = CliRunner().invoke(app, [*words, "--trials", str(voices.trials)])
    assert done.exit_code == 0, (done.output, done.exception)
    bundle = bundled(artifact, tmp_path / "bundles", calibration)
    limits = tmp_path / "limits.toml"
    entry = "expected = 1.0\ntolerance = 0.1\nspread = 0.1\nruns = 2\n"
    limits.write_text(gates.read_text() + "".join(f'[host.{one}."4bit.tflite"]\n{entry}' for one in ("ratio", "peak")))
    calibrated = next(one for one in read_calibration(calibration).thresholds if one.name == "eer").threshold

    with prepared_bundle(bundle, SpeechChoice(voices.audio, voices.trials), Progress.silent()) as prepared:
        run_bundle(HostDevice(), prepared, tmp_path / "out", protocol=PROTOCOL, progress=Progress.silent())
    report, verdicts = report_run(tmp_path / "out", limits)
    assert failed(verdicts) == set()
    assert report.reference_label == "4bit"
    for model in report.models:
        assert model.calibrated_score == "cosine"
        assert model.flips.reference_threshold == calibrated
        assert model.artifact_flips is not None
        assert (model.artifact_flips.reference_threshold, model.artifact_flips.total) == (calibrated, 0)
    assert any("no fp32 artifact" in note for note in report.notes)
    found = {one.gate: one.found for one in verdicts.results if one.subject == "tiny-4bit.tflite"}
    reason = "no fp32 control: the bundle has no stock fp32 .tflite"
    assert (found["latency ratio"], found["peak memory ratio"]) == (reason, reason)
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"{calibrated:.4f}*" in page


def test_long_audio_is_compared_chunk_by_chunk(tmp_path: Path, gates: Path, speech: SpeechChoice) -> None:
    words = [str(write_tiny(tmp_path / "4bit")), "--out", str(tmp_path), "--name", "tiny", "--chunk-seconds", "0.4"]
    done = CliRunner().invoke(app, ["bundle", "create", *words, "--max-seconds", "1"])
    assert done.exit_code == 0, (done.output, done.exception)
    bundle = tmp_path / "tiny-0.1.0.zip"
    verified = CliRunner().invoke(app, ["bundle", "verify", str(bundle)])  # the golden voice fits into a chunk
    assert verified.exit_code == 0, (verified.output, verified.exception)
    run(HostDevice(), bundle, tmp_path / "out", speech)  # of 0.5 s
    report, verdicts = report_run(tmp_path / "out", gates)
    assert failed(verdicts) == set()
    assert all(model.reference_parity.max_relative_error < 1e-4 for model in report.models)


def test_a_calibration_of_normalised_scores_is_compared_with_its_cohort(tmp_path: Path, gates: Path) -> None:
    voices, artifact, calibration = make_voices(tmp_path), write_tiny(tmp_path / "4bit"), tmp_path / "calibration"
    cohort = tmp_path / "cohort.safetensors"
    made = ["cohort", artifact, "--corpus", voices.audio, "--out", cohort]
    calibrated_with = ["calibrate", artifact, "--out", calibration, "--audio", voices.audio]
    calibrated_with += ["--trials", voices.trials, "--cohort", cohort, "--cohort-top", "2"]
    for words in (made, calibrated_with):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, (done.output, done.exception)
    bare = Path(shutil.copytree(calibration, tmp_path / "bare"))
    (bare / "cohort.safetensors").unlink()
    with pytest.raises(InputError, match=r"bare/cohort\.safetensors: expected the cohort of .*, found no such file"):
        bundled(artifact, tmp_path / "none", bare)
    bundle = bundled(artifact, tmp_path / "bundles", calibration)
    calibrated = next(one for one in read_calibration(calibration).thresholds if one.name == "eer").threshold
    with prepared_bundle(bundle, SpeechChoice(voices.audio, voices.trials), Progress.silent()) as prepared:
        run_bundle(HostDevice(), prepared, tmp_path / "out", protocol=PROTOCOL, progress=Progress.silent())
    report, verdicts = report_run(tmp_path / "out", gates)
    assert failed(verdicts) == set()
    for model in report.models:
        assert model.calibrated_score == "as-norm"
        assert model.flips.reference_threshold == report.reference.threshold != calibrated
        assert model.artifact_flips is not None
        assert (model.artifact_flips.reference_threshold, model.artifact_flips.total) == (calibrated, 0)
    assert any("calibrated for AS-Norm scores" in note for note in report.notes)
    limits = [one.limit for one in verdicts.results if one.gate == "decision flips"]
    assert all("bundle's threshold of AS-Norm scores" in limit for limit in limits)
    assert f"{calibrated:.4f} AS-Norm*" in (tmp_path / "out" / "report.md").read_text()

    (tmp_path / "out" / "references" / "cohort-4bit-exact.safetensors").unlink()
    with pytest.raises(InputError, match=r"cohort-4bit-exact\.safetensors: expected a cohort .*, found no such file"):
        report_run(tmp_path / "out", gates)


def test_decisions_that_flip_fail_their_gate(on_host: Path, gates: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(on_host, tmp_path / "run"))
    path = folder / "embeddings" / "tiny-4bit.pte.safetensors"
    made = load_file(path)
    # Every utterance with the embedding of another one: each decision is a matter of chance.
    save_file(dict(zip(made, list(made.values())[::-1], strict=True)), path)
    _, verdicts = report_run(folder, gates)
    assert ("tiny-4bit.pte", "decision flips") in failed(verdicts)
    assert {subject for subject, _ in failed(verdicts)} == {"tiny-4bit.pte"}


def test_pytest_runs_the_same_gates(bundle: Path, speech: SpeechChoice, gates: Path, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]

    def pytest_on(bundle: Path) -> subprocess.CompletedProcess[str]:
        words = ["--bundle", str(bundle), "--device", "host", "--gates", str(gates), "--audio", str(speech.audio)]
        words += ["--trials", str(speech.trials), "--runs", "2", "--rounds", "1", "--device-out", str(tmp_path / "out")]
        return subprocess.run(
            [sys.executable, "-m", "pytest", "device_tests", "-q", "-p", "no:cacheprovider", *words],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )

    good = pytest_on(bundle)
    assert good.returncode == 0, good.stdout
    assert " passed" in good.stdout

    def damage(folder: Path) -> None:
        golden = load_file(folder / "golden/embeddings.safetensors")
        save_file({**golden, "4bit": -golden["4bit"]}, folder / "golden/embeddings.safetensors")

    bad = pytest_on(altered_bundle(bundle, tmp_path, damage))
    assert bad.returncode == 1
    assert "4 failed" in bad.stdout  # of features and of samples, in both formats
    assert "golden embedding" in bad.stdout
    none = pytest_on(tmp_path / "nothing")
    assert none.returncode == 2
    assert "expected a bundle's folder or zip, found no such file or folder" in none.stdout + none.stderr


def test_a_run_can_be_read_by_its_schema_alone(on_host: Path, gates: Path) -> None:
    record = read_run(on_host)
    assert record.bundle is not None
    assert (record.bundle.name, record.bundle.version) == ("tiny", "0.1.0")
    report: Report = report_run(on_host, gates)[0]
    assert report.bundle == record.bundle
