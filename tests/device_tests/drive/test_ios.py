"""The iOS driver: command lines against stand-ins for Xcode's tools, and parsing of transcripts; see transcripts/."""

from __future__ import annotations

import json
import plistlib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from device_tests.drive.build import host_build
from device_tests.drive.ios import (
    IosDevice,
    attached_ios_devices,
    exit_code,
    parse_device_list,
    parse_xctest,
    run_xctest,
    with_arguments,
)
from device_tests.drive.run import embed_with_engine
from exporters.tflite.emit import emit_tflite
from pipeline.cli import app
from pipeline.errors import InputError, MissingToolError, VoxPressError
from tests.device_tests.drive.xcode_end import APP, phone, xcrun
from tests.factories import tiny_artifact

TRANSCRIPTS = Path(__file__).with_name("transcripts")


def transcript(name: str) -> str:
    return (TRANSCRIPTS / name).read_text()


def test_phones_and_tablets_are_found_and_others_are_not() -> None:
    devices = parse_device_list(json.loads(transcript("devices.json")), APP)
    assert [(one.name[-1], one.model, one.os_version, one.usable) for one in devices] == [
        ("1", "iPhone 15", "17.5.1", True),
        ("2", "iPad13,18", "unknown", False),
    ]
    assert devices[0].describe() == "iPhone 15, iOS 17.5.1"
    assert "not connected" in devices[1].describe()
    with pytest.raises(VoxPressError, match="expected a connected device"), devices[1].open():
        pass
    for wrong in ({}, {"result": {"devices": [{}]}}):
        with pytest.raises(InputError, match="expected a list of devices"):
            parse_device_list(wrong, APP)


def test_without_xcode_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolError, match="need macOS"):
        attached_ios_devices(APP)


def test_devices_are_listed_with_devicectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xcrun(tmp_path, f'cp {TRANSCRIPTS}/devices.json "$answer"\n', monkeypatch)
    assert len(attached_ios_devices(APP)) == 2
    assert (tmp_path / "words").read_text().startswith("devicectl list devices --json-output ")


def test_an_engine_runs_in_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "4bit.tflite"
    model.write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    phone(tmp_path, host_build("tflite"), monkeypatch)
    device = IosDevice("ID1", "iPhone", "17", True, APP)
    features = {f"u{i}": np.random.default_rng(i).normal(size=(40, 80)).astype(np.float32) for i in range(3)}
    embeddings, record = embed_with_engine(device, model, features)
    assert embeddings.keys() == features.keys()
    assert record.utterances == 3
    words = (tmp_path / "words").read_text()
    assert f"--domain-type appDataContainer --domain-identifier {APP}" in words
    assert f"--console --terminate-existing --device ID1 {APP} --model Documents/voxpress/files/" in words
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model at all, but long enough for one")
    with pytest.raises(VoxPressError, match=r"broken\.tflite: expected a model that the engine can load"):
        embed_with_engine(device, broken, features)


def test_what_devicectl_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xcrun(tmp_path, f'cp {TRANSCRIPTS}/not_installed.json "$answer"; echo ERROR >&2; exit 1\n', monkeypatch)
    model = tmp_path / "4bit.tflite"
    model.write_bytes(b"x" * 100)
    features = {"u": np.zeros((40, 80), np.float32)}
    with pytest.raises(VoxPressError, match=r"ios:ID1: devicectl .*: The application failed to launch"):
        embed_with_engine(IosDevice("ID1", "iPhone", "17", True, APP), model, features)


def test_an_app_that_dies_has_no_exit_code() -> None:
    assert exit_code("progress 1 2\nvoxpress-exit:0\n", "ios:x") == 0
    assert exit_code("a line\nvoxpress-exit:2\n", "ios:x") == 2
    with pytest.raises(VoxPressError, match="App terminated due to signal 9"):
        exit_code("progress 1 2\nApp terminated due to signal 9.\n", "ios:x")


def test_xcodebuilds_word_is_parsed() -> None:
    (case,) = parse_xctest(transcript("xctest_passed.txt"), "ios:x")
    assert (case.name, case.passed, case.seconds) == ("BenchmarkTests.BenchmarkTests.testEngine", True, 12.345)
    with pytest.raises(VoxPressError, match=r"ios:x: expected tests that succeed, found: BenchmarkTests\..*testEngine"):
        parse_xctest(transcript("xctest_failed.txt"), "ios:x")
    with pytest.raises(VoxPressError, match=r"found: xcodebuild: error: Unable to find a destination"):
        parse_xctest("xcodebuild: error: Unable to find a destination\n", "ios:x")


@pytest.mark.parametrize("version", [1, 2])
def test_arguments_go_into_the_test_bundles_environment(version: int) -> None:
    target = {"TestBundlePath": "x", "EnvironmentVariables": {"A": "b"}}
    if version == 1:
        content = {"__xctestrun_metadata__": {"FormatVersion": 1}, "BenchmarkTests": target}
    else:
        content = {"__xctestrun_metadata__": {"FormatVersion": 2}, "TestConfigurations": [{"TestTargets": [target]}]}
    made = plistlib.loads(with_arguments(plistlib.dumps(content), ["--runs", "3"]))
    found = made["BenchmarkTests"] if version == 1 else made["TestConfigurations"][0]["TestTargets"][0]
    assert found["EnvironmentVariables"] == {"A": "b", "VOXPRESS_ARGUMENTS": "--runs\n3"}


def test_a_test_bundle_is_run_with_xcodebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "xcodebuild"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" > {tmp_path}/words\ncat {TRANSCRIPTS}/xctest_passed.txt\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    run_file = tmp_path / "VoxPress.xctestrun"
    run_file.write_bytes(plistlib.dumps({"BenchmarkTests": {}}))
    words = ["device", "xctest", str(run_file), "ios:ID1", "--argument=--runs", "--argument=3", "--json"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out.xcresult")])
    assert done.exit_code == 0
    assert [case["passed"] for case in json.loads(done.stdout)] == [True]
    said = (tmp_path / "words").read_text()
    assert said.startswith("test-without-building -xctestrun ")
    assert "-destination platform=iOS,id=ID1 -resultBundlePath" in said
    assert [path.name for path in tmp_path.glob("*.xctestrun")] == ["VoxPress.xctestrun"]


@pytest.mark.parametrize("content", [None, b"", b"no list", b"<plist><array/></plist>"])
def test_what_is_no_test_bundle_is_refused(tmp_path: Path, content: bytes | None) -> None:
    run_file = tmp_path / "VoxPress.xctestrun"
    if content is not None:
        run_file.write_bytes(content)
    with pytest.raises(InputError, match=r"VoxPress\.xctestrun: expected "):
        run_xctest(run_file, "ID1", [], tmp_path / "out.xcresult")
