"""The adb driver with the real client against a device's end of the protocol that runs the host's runners."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from device_tests.drive.adb import AdbDevice, AdbSettings, attached_devices
from device_tests.drive.build import Build, host_build
from device_tests.drive.process import HostDevice
from device_tests.drive.run import ModelFile, embed_with_engine, run_on_device
from device_tests.records import Protocol
from exporters.tflite.emit import emit_tflite
from pipeline.errors import VoxPressError
from tests.conftest import NEEDS_TOOL
from tests.device_tests.drive.adb_device_end import DeviceEnd, Faults, adb_client, adb_is_here
from tests.factories import tiny_artifact

pytestmark = pytest.mark.skipif(not adb_is_here(), reason=f"{NEEDS_TOOL}adb")

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = AdbSettings(cool_down_seconds=2, poll_seconds=0.1, retries=5, wait_seconds=5)
PROTOCOL = Protocol(warmup=0, runs=2, rounds=2, speed_frames=40)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with adb_client(tmp_path_factory.mktemp("adb-home")):
        yield


@pytest.fixture
def attach(client: None, tmp_path: Path) -> Iterator[Callable[..., tuple[DeviceEnd, AdbDevice]]]:
    opened: list[DeviceEnd] = []

    def make(faults: Faults | None = None, builds: Callable[..., Build] = host_build, settings: AdbSettings = SETTINGS):  # type: ignore[no-untyped-def]
        end = DeviceEnd(tmp_path / f"device{len(opened)}", faults).__enter__()
        opened.append(end)
        subprocess.run(["adb", "connect", end.serial], capture_output=True, check=True, timeout=30)
        return end, AdbDevice(end.serial, builds=builds, settings=settings)

    yield make
    for end in opened:
        subprocess.run(["adb", "disconnect", end.serial], capture_output=True, check=False, timeout=30)
        end.__exit__()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "4bit.tflite"
    path.write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    return path


def features(count: int = 3, frames: int = 45) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"s{i:03d}/u.wav": rng.normal(size=(frames + i % 3, 80)).astype(np.float32) for i in range(count)}


def test_devices_are_listed_with_their_state(attach: Callable[..., tuple[DeviceEnd, AdbDevice]]) -> None:
    end, _ = attach()
    found = {device.serial: device for device in attached_devices()}
    assert found[end.serial].state == "device"
    assert "Test Phone" in found[end.serial].describe()


def test_a_run_pushes_each_file_once_and_leaves_nothing(
    attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path, tmp_path: Path
) -> None:
    end, device = attach()
    file = ModelFile(model, "tflite", "4bit", "voxpress")
    run = run_on_device(device, [file], features(), tmp_path / "out", protocol=PROTOCOL)
    assert (run.device, run.device_class) == (f"adb:{end.serial}", "android")
    assert len(run.models[0].latency_ns) == 4
    # The runner, its runtime and delegate, the model, the features, and those that are timed.
    assert len(end.pushes) == len(set(end.pushes)) == 6
    here, _ = embed_with_engine(HostDevice(), model, features())
    there = load_file(tmp_path / "out" / run.models[0].embeddings)
    assert here.keys() == there.keys()
    for name, value in here.items():
        np.testing.assert_array_equal(there[name], value)
    assert not end.local("/data/local/tmp/voxpress").exists()


def test_a_connection_lost_in_a_push_is_taken_up_again(
    attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path
) -> None:
    end, device = attach(Faults(disconnects_in_push=2))
    embeddings, _ = embed_with_engine(device, model, features())
    assert len(embeddings) == 3
    assert end.disconnects == 2


def test_an_offline_device_is_named(attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path) -> None:
    end, device = attach(Faults(offline=True), settings=AdbSettings(retries=1, wait_seconds=1))
    with pytest.raises(VoxPressError, match=rf"adb:{end.serial}: expected a device that answers, found: .*") as caught:
        embed_with_engine(device, model, features())
    assert "\n" not in str(caught.value)


def test_a_full_device_is_said_and_cleaned_up(attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path) -> None:
    end, device = attach(Faults(no_space=True))
    with pytest.raises(VoxPressError, match=r"expected room on the device, found: .*No space left on device"):
        embed_with_engine(device, model, features())
    assert not end.local("/data/local/tmp/voxpress").exists()


def test_an_engines_own_error_is_the_line(attach: Callable[..., tuple[DeviceEnd, AdbDevice]], tmp_path: Path) -> None:
    _, device = attach()
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model, but long enough to be read" * 4)
    with pytest.raises(VoxPressError, match=r"broken\.tflite: expected a model that the engine can load, found"):
        embed_with_engine(device, broken, features())


def test_an_engine_that_dies_is_named_with_its_signal(
    attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path, tmp_path: Path
) -> None:
    dying = tmp_path / "dying_runner"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    _, device = attach(builds=lambda _: Build(dying))
    with pytest.raises(VoxPressError, match=r"4bit\.tflite \(sha256 [0-9a-f]{64}\): .*SIGSEGV"):
        embed_with_engine(device, model, features())


def test_a_hot_device_is_waited_for_and_then_noted(
    attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path, tmp_path: Path
) -> None:
    end, device = attach(settings=AdbSettings(cool_down_seconds=0.3, poll_seconds=0.1))
    end.heat(71.5)
    run = run_on_device(
        device, [ModelFile(model, "tflite", "4bit", "voxpress")], features(), tmp_path, protocol=PROTOCOL
    )
    assert any("71.5 °C" in note for note in run.notes)
    end.heat(30)
    again = run_on_device(
        device, [ModelFile(model, "tflite", "4bit", "voxpress")], features(), tmp_path, protocol=PROTOCOL
    )
    assert not any("°C" in note for note in again.notes)


def test_five_hundred_utterances_survive_random_disconnects(
    attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path, tmp_path: Path
) -> None:
    many = features(500, 200)  # long enough for an engine to be stopped where it is, not after it has done them all
    end, device = attach(Faults(disconnects_in_run=8, lines=60, seed=3))
    embeddings, record = embed_with_engine(device, model, many)
    assert end.disconnects == 8
    assert sorted(embeddings) == sorted(many)
    assert record.utterances == 500
    assert record.resumed > 0
    undisturbed, _ = embed_with_engine(device, model, many)
    for name, value in undisturbed.items():
        np.testing.assert_array_equal(embeddings[name], value)


def test_an_app_is_started_by_intent_and_read_back(
    attach: Callable[..., tuple[DeviceEnd, AdbDevice]], model: Path
) -> None:
    """The app's entry is the core's own; a build of the core with both engines stands for the app."""
    end, device = attach(settings=AdbSettings(app="org.example.app/.Benchmark", poll_seconds=0.1))
    home = end.root / "app"
    (home / "files").mkdir(parents=True)
    build = host_build("tflite")
    entry = f"env PYTHONPATH={ROOT} {sys.executable} -m tests.device_tests.core.benchmark_app"
    end.program("run-as", f'shift; cd {home} && exec "$@"')
    end.program(
        "am",
        f'cd {home}/files; IFS=,; set -- $7; IFS=" "\n'
        'for word; do [ "$previous" = --out ] && out=$word; previous=$word; done; mkdir -p $out\n'
        f'{entry} "$@" --runtime-library {build.runtime} --delegate-library {build.delegate}\n'
        "echo $? > $out/exit_code",
    )
    embeddings, record = embed_with_engine(device, model, features())
    assert len(embeddings) == record.utterances == 3
    assert json.dumps(record.kernels).count("conv2d")
    assert any(
        command.startswith("am start -W -n org.example.app/.Benchmark --esa arguments") for command in end.commands
    )
