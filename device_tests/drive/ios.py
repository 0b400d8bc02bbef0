"""iPhones and iPads through Xcode's command lines, on macOS: devicectl for an app, xcodebuild for a built test bundle.

Programs cannot be run there, so engines run in a benchmark app. It gets the runner's options as arguments, paths below
its own container; it writes what the runner writes into the folder that `--out` names, prints the runner's lines, and
last `voxpress-exit:<code>`.
"""

from __future__ import annotations

import hashlib
import json
import plistlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from device_tests.drive.device import EngineCall
from device_tests.records import EMBEDDINGS_FILE, ENGINE_FILE, DeviceClass, ModelFormat
from pipeline.errors import InputError, MissingToolError, VoxPressError
from pipeline.files import sha256_file

_EXIT = re.compile(r"voxpress-exit:(\d+)")
_TEST_END = re.compile(r"Test Case '-\[(\S+) (\S+)\]' (passed|failed) \(([\d.]+) seconds\)")
_CONTAINER = "Documents/voxpress"


@dataclass(frozen=True)
class TestCase:
    """One test as xcodebuild reports it."""

    name: str
    passed: bool
    seconds: float


@dataclass(frozen=True)
class IosDevice:
    """One device that Xcode knows."""

    identifier: str
    model: str
    os_version: str
    usable: bool
    app: str
    device_class: DeviceClass = "ios"
    latency_valid: bool = True

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"ios:{self.identifier}"

    def describe(self) -> str:
        """See `Device`."""
        what = f"{self.model}, iOS {self.os_version}"
        return what if self.usable else f"not usable now: not connected ({what})"

    @contextmanager
    def open(self) -> Iterator[IosSession]:
        """See `Device`. Raises VoxPressError if it is not connected."""
        if not self.usable:
            raise VoxPressError(f"{self.name}: expected a connected device, found {self.describe()}")
        yield IosSession(self)


class IosSession:
    """An open device with the benchmark app on it."""

    def __init__(self, device: IosDevice) -> None:
        self._device = device
        self._copied: set[str] = set()

    def engine_digest(self, model_format: ModelFormat) -> str:
        """See `Session`; an app is known by its name only."""
        return hashlib.sha256(f"{self._device.app} {model_format}".encode()).hexdigest()

    def ready(self) -> list[str]:
        """See `Session`: the system tells no temperature, so there is nothing to wait for."""
        return []

    def start(self, call: EngineCall, follow: Callable[[str], None]) -> int:
        """See `Session`."""
        model, features = self._place(call.model), self._place(call.features)
        if call.weights is not None:
            self._place(call.weights, call.weights.name)  # which the model asks for
        words = (call.sha256, sha256_file(call.features), call.protocol.model_dump_json(), str(call.skip_accuracy))
        out = f"{_CONTAINER}/{hashlib.sha256(' '.join(words).encode()).hexdigest()[:16]}"
        options = call.options(model, features, out)
        launch = ["device", "process", "launch", "--console", "--terminate-existing"]
        said = self._devicectl([*launch, "--device", self._device.identifier, self._device.app, *options])
        code = exit_code(said, self._device.name)
        for line in said.splitlines():
            if not _EXIT.search(line):
                follow(line)
        if code == 0:
            names = [ENGINE_FILE] if call.skip_accuracy else [EMBEDDINGS_FILE, ENGINE_FILE]
            for name in names:
                self._copy("from", f"{out}/{name}", str(call.out / name))
        return code

    def _place(self, path: Path, name: str | None = None) -> str:
        place = f"{_CONTAINER}/files/{name or f'{sha256_file(path)[:16]}-{path.name}'}"
        if place not in self._copied:
            self._copy("to", str(path), place)
            self._copied.add(place)
        return place

    def _copy(self, direction: str, source: str, destination: str) -> None:
        words = ["device", "copy", direction, "--device", self._device.identifier]
        words += ["--domain-type", "appDataContainer", "--domain-identifier", self._device.app]
        self._devicectl([*words, "--source", source, "--destination", destination])

    def _devicectl(self, words: Sequence[str]) -> str:
        said, _ = _devicectl(words, self._device.name)
        return said


def attached_ios_devices(app: str) -> list[IosDevice]:
    """Devices that Xcode knows. Raises MissingToolError where there is no Xcode."""
    _, answer = _devicectl(["list", "devices"], "ios")
    return parse_device_list(answer, app)


def parse_device_list(answer: dict[str, Any], app: str) -> list[IosDevice]:
    """IPhones and iPads in the JSON answer of `devicectl list devices`. Raises InputError if it is none."""
    try:
        listed = answer["result"]["devices"]
        return [
            IosDevice(
                identifier=one["identifier"],
                model=one["hardwareProperties"].get("marketingName") or one["hardwareProperties"]["productType"],
                os_version=one["deviceProperties"].get("osVersionNumber", "unknown"),
                usable=one["connectionProperties"].get("tunnelState") in ("connected", "disconnected")
                and one["connectionProperties"].get("pairingState") == "paired",
                app=app,
            )
            for one in listed
            if one["hardwareProperties"].get("platform") == "iOS"
        ]
    except (KeyError, TypeError) as error:
        raise InputError("devicectl", expected="a list of devices", found=f"no {error}") from None


def exit_code(said: str, name: str) -> int:
    """The code in the last `voxpress-exit:<code>` of an app's console. Raises VoxPressError if there is none."""
    codes = _EXIT.findall(said)
    if not codes:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else "nothing"
        raise VoxPressError(f"{name}: expected the app to end with voxpress-exit, found: {last}")
    return int(codes[-1])


def xctest_command(xctestrun: Path, identifier: str, result_bundle: Path) -> list[str]:
    """The command that runs a built test bundle on a device."""
    return [
        *("xcodebuild", "test-without-building"),
        *("-xctestrun", str(xctestrun)),
        *("-destination", f"platform=iOS,id={identifier}"),
        *("-resultBundlePath", str(result_bundle)),
    ]


def run_xctest(xctestrun: Path, identifier: str, arguments: Sequence[str], result_bundle: Path) -> list[TestCase]:
    """Run a built test bundle with the runner's options in its environment, and return its cases.

    Raises InputError for what is no property list of tests or a result bundle that is there already, VoxPressError if
    the tests ended without success, MissingToolError where there is no Xcode.
    """
    if result_bundle.exists():
        raise InputError(result_bundle, expected="a place for a new result bundle", found="something there already")
    try:
        content = with_arguments(xctestrun.read_bytes(), arguments)
    except OSError as error:
        raise InputError(xctestrun, expected="an .xctestrun file", found=error.strerror or str(error)) from None
    except (plistlib.InvalidFileException, ExpatError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(xctestrun, expected="a property list of tests", found=str(error) or "none") from None
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        # Beside the original, since paths in it are relative to its own folder.
        ours = xctestrun.with_name(f".{Path(name).name}.xctestrun")
        ours.write_bytes(content)
        try:
            done = _run(xctest_command(ours, identifier, result_bundle))
        finally:
            ours.unlink(missing_ok=True)
    return parse_xctest(done.stdout + done.stderr, f"ios:{identifier}")


def with_arguments(xctestrun: bytes, arguments: Sequence[str]) -> bytes:
    """An .xctestrun property list whose tests find `arguments` in VOXPRESS_ARGUMENTS, one a line."""
    content = plistlib.loads(xctestrun)
    if content.get("__xctestrun_metadata__", {}).get("FormatVersion", 1) >= 2:
        targets = [target for one in content["TestConfigurations"] for target in one["TestTargets"]]
    else:
        targets = [value for key, value in content.items() if not key.startswith("__")]
    for target in targets:
        target.setdefault("EnvironmentVariables", {})["VOXPRESS_ARGUMENTS"] = "\n".join(arguments)
    return plistlib.dumps(content)


def parse_xctest(said: str, name: str) -> list[TestCase]:
    """The cases in the output of xcodebuild. Raises VoxPressError unless it says that the tests succeeded."""
    cases = [TestCase(f"{one[0]}.{one[1]}", one[2] == "passed", float(one[3])) for one in _TEST_END.findall(said)]
    if "** TEST EXECUTE SUCCEEDED **" not in said:
        failed = [case.name for case in cases if not case.passed]
        errors = [line.strip() for line in said.splitlines() if "error:" in line]
        found = ", ".join(failed) or (errors[-1] if errors else "no word of success")
        raise VoxPressError(f"{name}: expected tests that succeed, found: {found}")
    return cases


def _devicectl(words: Sequence[str], name: str) -> tuple[str, dict[str, Any]]:
    """Run devicectl: what it and an app said, and its JSON answer. Raises VoxPressError with its own description."""
    with tempfile.TemporaryDirectory(prefix="voxpress-") as folder:
        answer_file = Path(folder) / "answer.json"
        # Options follow the whole of the command's name, and what follows the app's name is the app's.
        at = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
        done = _run(["xcrun", "devicectl", *words[:at], "--json-output", str(answer_file), *words[at:]])
        try:
            answer = json.loads(answer_file.read_text(encoding="utf-8")) if answer_file.is_file() else {}
        except json.JSONDecodeError as error:
            raise VoxPressError(f"{name}: expected JSON from devicectl, found: {error}") from None
    if done.returncode != 0 or answer.get("info", {}).get("outcome", "success") != "success":
        raise VoxPressError(f"{name}: devicectl {' '.join(words[:3])}: {_description(answer, done.stderr)}")
    return done.stdout, answer


def _description(answer: dict[str, Any], said: str) -> str:
    info = answer.get("error", {}).get("userInfo", {})
    text = info.get("NSLocalizedDescription", {}).get("string")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return text or (lines[-1] if lines else "failed without a word")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise MissingToolError(f"{command[0]}: expected Xcode's command line tools, found none; they need macOS")
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
