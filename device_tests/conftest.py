"""`pytest device_tests --bundle B --device D`: the gates of `voxpress device run` as tests, one for each verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_tests.bundle_run import SpeechChoice, prepared_bundle, report_run, run_bundle
from device_tests.drive.choose import Choice, chosen_devices
from device_tests.gates import DEFAULT_GATES, GateResult
from device_tests.records import Protocol
from pipeline.errors import VoxPressError
from pipeline.progress import Progress


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options as those of `voxpress device run`."""
    group = parser.getgroup("voxpress device")
    group.addoption("--bundle", type=Path, help="a bundle's folder or zip")
    group.addoption("--device", default="host", help="host, qemu-aarch64, adb:SERIAL or ios:ID")
    group.addoption("--device-build", default="android", help="as `voxpress device run --build`")
    group.addoption("--device-out", type=Path, default=Path("out") / "device-pytest", help="folder of the run")
    group.addoption("--gates", type=Path, default=DEFAULT_GATES, help="limits of one's own")
    group.addoption("--audio", type=Path, help="folder that the trial list's paths are relative to")
    group.addoption("--trials", type=Path, help="trial list")
    group.addoption("--runs", type=int, default=10, help="timed runs of each file in each round")
    group.addoption("--rounds", type=int, default=3, help="rounds over all files")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the bundle, and make a test of every verdict."""
    if "verdict" not in metafunc.fixturenames:
        return
    results = _verdicts(metafunc.config)
    ids = [f"{one.subject}-{one.gate.replace(' ', '-')}" for one in results]
    metafunc.parametrize("verdict", results, ids=ids)


def _verdicts(config: pytest.Config) -> tuple[GateResult, ...]:
    option = config.getoption
    if option("--bundle") is None:
        return ()
    try:
        (device,) = chosen_devices([option("--device")], Choice(build=option("--device-build")))
        protocol = Protocol(runs=option("--runs"), rounds=option("--rounds"))
        out = option("--device-out")
        with prepared_bundle(
            option("--bundle"), SpeechChoice(option("--audio"), option("--trials")), Progress.silent()
        ) as bundle:
            run_bundle(device, bundle, out, protocol=protocol, progress=Progress.silent())
        _, verdicts = report_run(out, option("--gates"))
    except VoxPressError as error:
        pytest.exit(str(error), returncode=error.exit_code)
    return verdicts.results
