"""`voxpress device ...` as a user types it: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_tests.drive.build import host_build
from pipeline.cli import main
from tests.device_tests.bundles import make_bundle


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), ("tflite",))


GATES = "[all]\nmin_runs = 1\nmin_rounds = 1\np90_ratio = 1000\n[all.file_ratio]\n4bit = 0.3\n"
FAST = ("--warmup", "0", "--runs", "2", "--rounds", "1", "--speed-frames", "40", "--crop-seconds", "0.4")

ONLY = ("--only", "tiny-fp32.tflite", "--only", "tiny-4bit.tflite")


def voxpress(folder: Path, *words: object) -> Done:
    """Run a command in this process, in `folder`: importing torch anew for each would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["voxpress", "device", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())


def last_line(done: Done) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_devices_are_listed(tmp_path: Path) -> None:
    names = {one["name"] for one in json.loads(voxpress(tmp_path, "list", "--json").stdout)}
    assert {"host", "qemu-aarch64"} <= names
    assert "host" in voxpress(tmp_path, "list").stdout


def test_a_run_is_reported_judged_kept_and_gated(bundle: Path, tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text(GATES)
    words = ("run", bundle, *FAST, *ONLY, "--gates", gates)
    good = voxpress(tmp_path, *words)
    assert good.returncode == 0, good.stderr
    assert "tiny 0.1.0 on host" in good.stdout
    folder = tmp_path / "out/device-runs/tiny-0.1.0/host"
    for name in ("run.json", "report.html", "report.md", "verdicts.json", "junit.xml"):
        assert (folder / name).is_file()

    gates.write_text(GATES.replace("0.3", "0.01"))
    bad = voxpress(tmp_path, *words, "--json")
    assert bad.returncode == 3
    (line,) = [line for line in bad.stderr.splitlines() if line.startswith("voxpress: ")]
    assert line.startswith(
        "voxpress: host: failed: tiny-4bit.tflite: file size: expected at most 0.01 of the fp32 file"
    )
    (found,) = json.loads(bad.stdout)
    assert found["report"]["bundle"]["name"] == "tiny"
    again = voxpress(tmp_path, "report", folder, "--out", "matrix", "--gates", gates)
    assert (again.returncode, again.stderr) == (3, line + "\n")
    assert sorted(path.name for path in (tmp_path / "matrix").iterdir()) == [
        "junit.xml",
        "matrix.html",
        "matrix.json",
        "matrix.md",
    ]

    trend = voxpress(tmp_path, "trend", "--json")
    assert trend.returncode == 3  # the second run fails a gate that the first one passed
    assert {row["file"] for row in json.loads(trend.stdout)["rows"]} == {"tiny-fp32.tflite", "tiny-4bit.tflite"}
    assert voxpress(tmp_path, "trend", "--bundle", "another").returncode == 0

    shutil.copytree(folder, tmp_path / "second")
    made = voxpress(tmp_path, "gates", folder, tmp_path / "second")
    assert made.returncode == 0
    assert '[host.ratio."4bit.tflite"]' in made.stdout


def test_a_farm_job_goes_out_and_its_results_come_back(bundle: Path, tmp_path: Path) -> None:
    for name in ("app.apk", "tests.apk"):
        (tmp_path / name).write_bytes(b"an app")
    native, runtime = tmp_path / "build" / "native", tmp_path / "build" / "runtime"
    build = host_build("tflite")
    assert build.runtime is not None
    assert build.delegate is not None
    native.mkdir(parents=True)
    (runtime / "ai_edge_litert").mkdir(parents=True)
    shutil.copy(build.runner, native)
    shutil.copy(build.delegate, native)
    shutil.copy(build.runtime, runtime / "ai_edge_litert")
    apps = ("--app", "app.apk", "--tests", "tests.apk")
    words = ("package", "aws", bundle, *apps, "--out", "job", "--build", tmp_path / "build", *FAST, *ONLY)
    packed = voxpress(tmp_path, *words, "--only", "tiny-4bit-waveform.tflite")
    assert packed.returncode == 0, packed.stderr
    assert {Path(line).name for line in packed.stdout.split()} == {"job.zip", "testspec.yml", "schedule-run.json"}
    subprocess.run(["sh", str(tmp_path / "job/device/run.sh")], check=True, capture_output=True)
    (tmp_path / "gates.toml").write_text(GATES + '[android]\nkernels = ["avx512", "avx2", "neon"]\n')
    words = ("ingest", "job/device/results", "--job", "job", "--device", "pixel", "--gates", "gates.toml")
    whole = voxpress(tmp_path, *words, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "tiny 0.1.0 on farm:pixel" in whole.stdout
    (tmp_path / "job/device/results/accuracy/tiny-4bit.tflite/engine.json").unlink()
    part = voxpress(tmp_path, *words, "--out", "part")
    assert part.returncode == 3
    assert "failed: run: complete: expected all results, found accuracy/tiny-4bit.tflite" in part.stderr
    firebase = voxpress(
        tmp_path,
        "package",
        "firebase",
        bundle,
        *apps,
        "--out",
        "fire",
        "--farm-device",
        "model=oriole,version=33",
        *FAST,
    )
    assert firebase.returncode == 0, firebase.stderr
    assert not (tmp_path / "fire/device/bin").exists()  # there the app runs the engines


def test_what_is_wrong_is_one_line(bundle: Path, tmp_path: Path) -> None:
    apps = ("--app", "a.apk", "--tests", "t.apk", "--out", "j")
    for words, expected in (
        (("run", "nothing"), "nothing: expected a bundle's folder or zip, found no such file or folder"),
        (("run", bundle, "--device", "toaster"), "--device: expected host, qemu-aarch64"),
        (("run", bundle, "--audio", tmp_path), "--audio and --trials: expected both or neither, found only --audio"),
        (("run", bundle, "--only", "x.pte"), "expected models among"),
        (("run", bundle, "--gates", "no.toml"), "no.toml: expected gates, found no such file"),
        (("report", tmp_path), "run.json: expected a run record, found no such file"),
        (("trend",), "expected a history of device runs (--history), found no such file"),
        (("gates", tmp_path), "report.json: expected a device report, found no such file"),
        (("package", "oven", bundle, *apps), "FARM: expected aws or firebase"),
        (("package", "aws", bundle, *apps), "a.apk: expected a .apk file"),
        (("ingest", "r.zip", "--job", "j", "--device", "d", "--out", "o"), "job.json: expected a farm job"),
    ):
        assert expected in last_line(voxpress(tmp_path, *words)), words


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    commands = ("list", "run", "report", "gates", "trend", "package", "ingest", "schema")
    for command in commands:
        done = voxpress(tmp_path, command, "--help")
        assert done.returncode == 0
        assert f"Example: voxpress device {command}" in " ".join(done.stdout.split())


def test_a_device_that_fails_hides_no_gate_of_the_others(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gates.toml").write_text(GATES + "2bit = 0.2\n[host.file_ratio]\n4bit = 0.001\n")
    monkeypatch.setenv("PATH", "/nowhere")  # where there is no emulator
    words = ("--device", "host", "--device", "qemu-aarch64", "--gates", "gates.toml", *ONLY, *FAST)
    done = voxpress(tmp_path, "run", bundle, *words)
    assert "qemu-aarch64" in last_line(done)
    assert "host: failed: tiny-4bit.tflite: file size: expected at most 0.001 of the fp32 file" in done.stderr
