"""A bundle whose .pte files share their weights in a .ptd, on the host, through adb, in an app and as a farm's job."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from device_tests.bundle_run import PreparedBundle, SpeechChoice, prepared_bundle, run_bundle
from device_tests.drive.adb import AdbDevice
from device_tests.drive.build import host_build
from device_tests.drive.device import Device
from device_tests.drive.farm import write_job
from device_tests.drive.ios import IosDevice
from device_tests.drive.process import HostDevice
from device_tests.golden import run_golden
from device_tests.records import Protocol, read_run
from exporters.bundle.manifest import Manifest
from pipeline.errors import InputError
from pipeline.progress import Progress
from tests.conftest import NEEDS_TOOL
from tests.device_tests.bundles import make_bundle
from tests.device_tests.drive.adb_device_end import DeviceEnd, adb_client, adb_is_here
from tests.device_tests.drive.xcode_end import APP, phone

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(warmup=0, runs=2, rounds=1, speed_frames=40)
FILES = ("tiny-4bit-split.pte", "tiny-4bit-fast-split.pte", "tiny-4bit-waveform-split.pte")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("split"), ("pte",), split_weights=True)


@contextmanager
def prepared(bundle: Path) -> Iterator[PreparedBundle]:
    with prepared_bundle(bundle, SpeechChoice(), Progress.silent(), FILES) as found:
        few = {name: found.features[name] for name in sorted(found.features)[:3]}
        assert found.waveform is not None
        samples = {name: found.waveform.samples[name] for name in few}
        yield replace(found, features=few, waveform=replace(found.waveform, samples=samples))


def embeddings(device: Device, bundle: Path, out: Path) -> Mapping[str, Mapping[str, np.ndarray]]:
    with prepared(bundle) as found:
        run_bundle(device, found, out, protocol=PROTOCOL, progress=Progress.silent())
    return {file: load_file(out / "embeddings" / f"{file}.safetensors") for file in FILES}


def weights_of(bundle: Path) -> Path:
    (path,) = (bundle / "models").glob("*.ptd")
    return path


def test_the_manifest_lists_the_one_weights_file_of_all(split: Path) -> None:
    manifest = Manifest.model_validate_json((split / "manifest.json").read_bytes())
    weights = f"models/{weights_of(split).name}"
    assert {model.weights for model in manifest.models if model.lowering == "voxpress"} == {weights}
    assert {model.weights for model in manifest.models if model.lowering == "stock"} == {None}
    assert weights in manifest.files
    assert {one.outcome for one in run_golden(split, manifest, Progress.silent())} == {"agrees"}


def test_every_device_gets_the_weights(split: Path, tmp_path: Path) -> None:
    here = embeddings(HostDevice(), split, tmp_path / "host")
    if not adb_is_here():
        pytest.skip(f"{NEEDS_TOOL}adb")
    with adb_client(tmp_path / "home"), DeviceEnd(tmp_path / "phone") as end:
        subprocess.run(["adb", "connect", end.serial], capture_output=True, check=True, timeout=30)
        there = embeddings(AdbDevice(end.serial, builds=host_build), split, tmp_path / "adb")
        assert sum(name.endswith(".ptd.part") for name in end.pushes) == 1
    for file in FILES:
        for name, value in here[file].items():
            np.testing.assert_array_equal(there[file][name], value)


def test_an_app_gets_the_weights_beside_its_models(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = phone(tmp_path, host_build("pte"), monkeypatch)
    there = embeddings(IosDevice("ID1", "iPhone", "17", True, APP), split, tmp_path / "ios")
    here = embeddings(HostDevice(), split, tmp_path / "host")
    for file in FILES:
        for name, value in here[file].items():
            np.testing.assert_array_equal(there[file][name], value)
    (copied,) = container.rglob("*.ptd")
    assert copied.relative_to(container) == Path("Documents/voxpress/files") / weights_of(split).name
    assert {path.parent for path in container.rglob("*.pte")} == {copied.parent}
    copies = [line for line in (tmp_path / "words").read_text().splitlines() if " copy to --json-output " in line]
    assert sum(line.endswith(f"/{weights_of(split).name}") for line in copies) == 1


def test_sizes_are_with_the_weights(split: Path, tmp_path: Path) -> None:
    embeddings(HostDevice(), split, tmp_path / "run")
    shared = weights_of(split).stat().st_size
    run = read_run(tmp_path / "run")
    for model in run.models:
        assert model.file_bytes == shared + (split / "models" / model.file).stat().st_size
        assert any(model.file in note and weights_of(split).name in note for note in run.notes)


def test_a_farms_job_has_them_beside_the_models(split: Path, tmp_path: Path) -> None:
    with prepared(split) as found:
        job = write_job(
            tmp_path / "job",
            "android",
            found.models,
            found.features,
            protocol=PROTOCOL,
            bundle=found.identity,
            builds={"pte": host_build("pte")},
            waveform=found.waveform,
        )
    assert {model.weights_sha256 is not None for model in job.models} == {True}
    done = subprocess.run(["sh", str(tmp_path / "job/device/run.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_changed_or_missing_weights_are_refused(split: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(split, tmp_path / "copy"))
    weights = weights_of(copy)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=rf"{weights.name}: expected sha256 [0-9a-f]{{64}}, found"), prepared(copy):
        pass
    weights.unlink()
    with pytest.raises(InputError, match=weights.name), prepared(copy):
        pass
