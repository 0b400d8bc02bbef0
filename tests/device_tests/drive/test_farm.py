"""Farm packages, the script that a device works through, and results that come back whole, in part, or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import yaml

from device_tests.drive.build import host_build
from device_tests.drive.farm import FarmApps, Job, aws_package, firebase_package, ingest, read_job, write_job
from device_tests.drive.run import ModelFile
from device_tests.records import BundleIdentity, Protocol, read_embeddings
from exporters.tflite.emit import emit_tflite
from pipeline.errors import InputError
from tests.factories import tiny_artifact

PROTOCOL = Protocol(warmup=0, runs=2, rounds=2, speed_frames=40)
IDENTITY = BundleIdentity(name="tiny", version="0.1.0", manifest_sha256="0" * 64)


@pytest.fixture(scope="module")
def job_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    models = []
    for bits, lowering in (("fp32", "stock"), ("4bit", "voxpress")):
        path = folder / f"{bits}.tflite"
        path.write_bytes(emit_tflite(tiny_artifact(4 if bits == "4bit" else 32), lowering=lowering))
        models.append(ModelFile(path, "tflite", bits, lowering, is_control=bits == "fp32"))
    rng = np.random.default_rng(0)
    features = {f"s{i}/u.wav": rng.normal(size=(45, 80)).astype(np.float32) for i in range(3)}
    builds = {"tflite": host_build("tflite")}
    write_job(folder / "job", "android", models, features, protocol=PROTOCOL, bundle=IDENTITY, builds=builds)
    return folder / "job"


@pytest.fixture
def apps(tmp_path: Path) -> FarmApps:
    for name in ("app.apk", "test.apk", "app.ipa", "tests.zip"):
        (tmp_path / name).write_bytes(b"an app")
    return FarmApps(tmp_path / "app.apk", tmp_path / "test.apk")


@pytest.fixture(scope="module")
def worked(job_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device's folder after the script has run there."""
    place = Path(shutil.copytree(job_folder / "device", tmp_path_factory.mktemp("device") / "voxpress"))
    done = subprocess.run(["sh", str(place / "run.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_the_script_does_the_whole_job(job_folder: Path, worked: Path) -> None:
    job = read_job(job_folder)
    results = worked / "results"
    for model in job.models:
        assert len(read_embeddings(results / "accuracy" / model.file / "embeddings.safetensors")) == 3
        for index in range(2):
            record = json.loads((results / "rounds" / str(index) / model.file / "engine.json").read_text())
            assert len(record["latency_ns"]) == 2
    before = {path: path.stat().st_mtime_ns for path in results.rglob("engine.json")}
    subprocess.run(["sh", str(worked / "run.sh")], check=True)
    assert {path: path.stat().st_mtime_ns for path in results.rglob("engine.json")} == before


def test_aws_package(job_folder: Path, apps: FarmApps) -> None:
    archive, spec, schedule = aws_package(job_folder, read_job(job_folder), apps)
    names = zipfile.ZipFile(archive).namelist()
    assert {"device/job.json", "device/run.sh", "device/features.safetensors", "device/models/4bit.tflite"} <= set(
        names
    )
    assert "device/bin/voxpress_tflite_runner" in names
    content = yaml.safe_load(spec.read_text())
    assert content["version"] == 0.1
    assert set(content["phases"]) == {"install", "pre_test", "test", "post_test"}
    assert any("run.sh" in line for line in content["phases"]["test"]["commands"])
    assert any("$DEVICEFARM_LOG_DIR" in line for line in content["phases"]["post_test"]["commands"])
    uploads = {one["type"] for one in json.loads(schedule.read_text())["uploads"]}
    assert uploads == {"ANDROID_APP", "INSTRUMENTATION_TEST_PACKAGE", "INSTRUMENTATION_TEST_SPEC", "EXTERNAL_DATA"}


def test_aws_package_for_ios(job_folder: Path, apps: FarmApps, tmp_path: Path) -> None:
    job = read_job(job_folder).model_copy(update={"platform": "ios"})
    copy = Path(shutil.copytree(job_folder, tmp_path / "copy"))
    ios = FarmApps(tmp_path / "app.ipa", tmp_path / "tests.zip")
    _, spec, schedule = aws_package(copy, job, ios)
    (line,) = yaml.safe_load(spec.read_text())["phases"]["test"]["commands"]
    assert line.startswith("xcodebuild test-without-building -xctestrun")
    assert json.loads(schedule.read_text())["uploads"][0]["type"] == "IOS_APP"
    with pytest.raises(InputError, match=r"app\.apk: expected a \.ipa file"):
        aws_package(copy, job, apps)


def attachments(worked: Path, folder: Path, *, without: str = "nothing") -> Path:
    """As xcresulttool exports what the benchmark's XCTest attached: names of its own, and a manifest."""
    folder.mkdir()
    for index, record in enumerate(sorted((worked / "results").rglob("engine.json"))):
        place = record.parent.relative_to(worked).as_posix()
        files = {path.name: b64encode(path.read_bytes()).decode() for path in record.parent.iterdir()}
        if without not in place:
            text = json.dumps({"out": place, "files": files, "format": "voxpress-attachment"})
            (folder / f"{index:08X}.json").write_text(text)
    (folder / "manifest.json").write_text('[{"attachments": [{"exportedFileName": "00000000.json"}]}]')
    return folder


def test_attachments_of_an_xctest_are_results(job_folder: Path, worked: Path, tmp_path: Path) -> None:
    job = read_job(job_folder).model_copy(update={"platform": "ios"})
    run = ingest(attachments(worked, tmp_path / "whole"), job, "farm:iphone", tmp_path / "run")
    assert (run.device_class, run.missing, len(run.models)) == ("ios", (), 2)
    assert len(read_embeddings(tmp_path / "run" / run.models[0].embeddings)) == 3
    part = ingest(
        attachments(worked, tmp_path / "part", without="rounds/1/4bit"), job, "farm:iphone", tmp_path / "less"
    )
    (missing,) = part.missing
    assert missing.startswith("rounds/1/4bit.tflite: ")
    for name, change in (("damaged", ('"files"', '"fills"')), ("others", ("results/accuracy/", "../../accuracy/"))):
        folder = attachments(worked, tmp_path / name)
        path = folder / "00000000.json"
        path.write_text(path.read_text().replace(*change))
        with pytest.raises(InputError, match=r"00000000\.json: expected "):
            ingest(folder, job, "farm:iphone", tmp_path / f"{name}-run")


def test_firebase_package(job_folder: Path, apps: FarmApps) -> None:
    archive, arguments = firebase_package(job_folder, read_job(job_folder), apps, ["model=oriole,version=33"])
    text = arguments.read_text()
    assert text.startswith("# gcloud firebase test android run gcloud.yaml:voxpress\n")
    content = yaml.safe_load(text)["voxpress"]
    assert content["type"] == "instrumentation"
    assert content["device"] == [{"model": "oriole", "version": "33"}]
    assert content["other-files"] == {"/sdcard/voxpress/job.zip": archive.name}
    assert content["directories-to-pull"] == ["/sdcard/voxpress/results"]
    assert content["app"] == str(apps.app.resolve())  # gcloud is run in the job's folder
    for devices, words in ((["oriole"], "found oriole"), ([], "found none")):
        with pytest.raises(InputError, match=f"--farm-device: expected model=ID,version=NUMBER.*, {words}"):
            firebase_package(job_folder, read_job(job_folder), apps, devices)
    ios = read_job(job_folder).model_copy(update={"platform": "ios"})
    with pytest.raises(InputError, match="--platform: expected android, for firebase, found ios"):
        firebase_package(job_folder, ios, apps, ["model=oriole,version=33"])


def customer_artifacts(worked: Path, archive: Path, *, without: tuple[str, ...] = ()) -> Path:
    """As AWS packs what a run left in $DEVICEFARM_LOG_DIR."""
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("Host_Machine_Files/$DEVICEFARM_LOG_DIR/Test spec output.txt", "done\n")
        for path in sorted((worked / "results").rglob("*")):
            name = path.relative_to(worked / "results").as_posix()
            if path.is_file() and not name.startswith(without):
                stream.write(path, f"Host_Machine_Files/$DEVICEFARM_LOG_DIR/voxpress/{name}")
    return archive


def test_whole_results_are_a_complete_run(job_folder: Path, worked: Path, tmp_path: Path) -> None:
    archive = customer_artifacts(worked, tmp_path / "Customer_Artifacts.zip")
    run = ingest(archive, read_job(job_folder), "farm:pixel", tmp_path / "run")
    assert run.missing == ()
    assert (run.device, run.device_class) == ("farm:pixel", "android")
    assert [len(model.rounds) for model in run.models] == [2, 2]
    assert len(read_embeddings(tmp_path / "run" / run.models[1].embeddings)) == 3
    again = ingest(worked / "results", read_job(job_folder), "farm:pixel", tmp_path / "again")
    assert again.models == run.models


@pytest.mark.parametrize(
    ("gone", "files", "words"),
    [
        (("rounds/1/4bit.tflite",), 2, "rounds/1/4bit.tflite"),
        (("accuracy/4bit.tflite",), 1, "accuracy/4bit.tflite"),
        (("rounds/0/4bit.tflite", "rounds/1/4bit.tflite"), 1, "left out"),
    ],
)
def test_what_is_missing_is_named(
    job_folder: Path, worked: Path, tmp_path: Path, gone: tuple[str, ...], files: int, words: str
) -> None:
    archive = customer_artifacts(worked, tmp_path / "part.zip", without=gone)
    run = ingest(archive, read_job(job_folder), "farm:pixel", tmp_path / "run")
    assert len(run.models) == files
    assert any(words in line for line in run.missing)
    assert all("\n" not in line for line in run.missing)


def test_an_engines_last_words_are_kept(job_folder: Path, worked: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(worked / "results", tmp_path / "results"))
    (place / "accuracy" / "4bit.tflite" / "engine.json").unlink()
    (place / "accuracy" / "4bit.tflite" / "log.txt").write_text("progress 1 5\nno memory for 8 bytes\n")
    run = ingest(place, read_job(job_folder), "farm:pixel", tmp_path / "run")
    assert "accuracy/4bit.tflite: no memory for 8 bytes" in run.missing
    (place / "accuracy" / "4bit.tflite" / "log.txt").write_text("progress 1 5\n")
    run = ingest(place, read_job(job_folder), "farm:pixel", tmp_path / "again")
    assert "accuracy/4bit.tflite: expected an engine record, found no such file" in run.missing


def test_results_that_are_none(job_folder: Path, tmp_path: Path) -> None:
    job: Job = read_job(job_folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    for path, words in (
        (tmp_path / "empty", "none of them"),
        (tmp_path / "bad.zip", "zip"),
        (tmp_path / "no", "no such"),
    ):
        with pytest.raises(InputError, match=words):
            ingest(path, job, "farm:x", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_results_of_other_files_are_not_believed(job_folder: Path, worked: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(worked / "results", tmp_path / "results"))
    for path in place.rglob("4bit.tflite/engine.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_sha256": "f" * 64}))
    run = ingest(place, read_job(job_folder), "farm:x", tmp_path / "run")
    assert [model.file for model in run.models] == ["fp32.tflite"]
    assert any("ffffffff" in line for line in run.missing)
