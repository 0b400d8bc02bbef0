"""Android devices, and Linux boards that speak its protocol, through the real adb client.

Files go to /data/local/tmp/voxpress/files under names that begin with their hash, so that nothing is pushed twice and
nothing half-pushed is used. An engine is the runner, started by the shell, or an app, started by an intent:

    am start -W -n PACKAGE/ACTIVITY --esa arguments <the runner's options, separated by commas>

An app reads the pushed files and writes what the runner writes into the folder that `--out` names below its own files,
and last a file `exit_code` there, with the runner's exit code; all is read back with run-as.

A device that is lost is connected to again. What an engine had embedded by then lies in its journal on the device, from
which it goes on when it is started again.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from device_tests.drive.build import Build, build_in
from device_tests.drive.device import EngineCall
from device_tests.records import EMBEDDINGS_FILE, ENGINE_FILE, DeviceClass, ModelFormat
from pipeline.errors import MissingToolError, VoxPressError
from pipeline.files import sha256_file

ROOT = "/data/local/tmp/voxpress"
ANDROID_BUILD = Path(__file__).resolve().parents[2] / "build" / "android-arm64"

_EXIT_MARK = "voxpress-exit:"
_EXIT_FILE = "exit_code"
_LOST = re.compile(
    r"offline|not found|no devices|error: closed|protocol fault|reset by peer|failed to read|failed to get feature"
    r"|couldn't (read from|write to) device"
    r"|connect error|cannot connect|broken pipe|EOF|device still connecting|Transport endpoint",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AdbSettings:
    """How patient the driver is, and how hot a device may be when timings begin."""

    max_start_celsius: float = 40.0
    cool_down_seconds: float = 180.0  # how long to wait for that
    poll_seconds: float = 5.0
    retries: int = 5  # lost connections in a row, without progress, before a device is given up
    wait_seconds: float = 30.0  # for a lost device to come back
    transfer_seconds: float = 300.0
    engine_seconds: float = 3600.0
    app: str | None = None  # PACKAGE/ACTIVITY to run engines in, instead of the runner


Answer = TypeVar("Answer")


class _LostError(Exception):
    """The connection broke; the same again may work."""


def android_build(model_format: ModelFormat) -> Build:
    """The build for arm64 Android in build/android-arm64. Raises MissingToolError if it is not there."""
    how = "build it as device_tests/harness/cmake/android-arm64.cmake says"
    return build_in(ANDROID_BUILD / "native", ANDROID_BUILD / "runtime", model_format, made_by=how)


def attached_devices(**how: object) -> list[AdbDevice]:
    """Every device that the adb server knows, in the order it names them; `how`: the other fields of AdbDevice."""
    try:
        listing = _adb(["devices", "-l"], seconds=30).stdout
    except _LostError as error:
        raise VoxPressError(f"adb: expected a server that answers, found: {error}") from None
    lines = [line.split() for line in listing.splitlines()[1:] if len(line.split()) >= 2]
    return [AdbDevice(serial=words[0], state=words[1], **how) for words in lines]  # type: ignore[arg-type]


@dataclass(frozen=True)
class AdbDevice:
    """One attached device."""

    serial: str
    state: str = "device"
    builds: Callable[[ModelFormat], Build] = android_build
    settings: AdbSettings = field(default_factory=AdbSettings)
    device_class: DeviceClass = "android"
    latency_valid: bool = True

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"adb:{self.serial}"

    def describe(self) -> str:
        """See `Device`."""
        if self.state != "device":
            return f"not usable now: {self.state}"
        try:
            properties = [_adb(["shell", f"getprop {name}"], self.serial).stdout.strip() for name in _PROPERTIES]
        except (VoxPressError, _LostError) as error:
            return f"not usable now: {error}"
        return ", ".join(filter(None, properties)) or "says nothing about itself"

    @contextmanager
    def open(self) -> Iterator[AdbSession]:
        """See `Device`. What was pushed is removed in the end, unless the device is lost."""
        session = AdbSession(self)
        session.check()
        try:
            yield session
        finally:
            with suppress(VoxPressError, _LostError):
                _adb(["shell", f"rm -rf {ROOT}"], self.serial)


_PROPERTIES = ("ro.product.model", "ro.soc.model", "ro.build.version.release", "ro.product.cpu.abi")


class AdbSession:
    """An open device: what was pushed, and engines started on it."""

    def __init__(self, device: AdbDevice) -> None:
        self._device = device
        self._settings = device.settings
        self._pushed: dict[Path, str] = {}

    def check(self) -> None:
        """Raise VoxPressError, naming the device and its state, unless it answers."""
        self._patiently(lambda: self._shell(f"mkdir -p {ROOT}/files {ROOT}/work"))

    def engine_digest(self, model_format: ModelFormat) -> str:
        """See `Session`; an app is known by its name only."""
        if self._settings.app is not None:
            return hashlib.sha256(self._settings.app.encode()).hexdigest()
        return self._device.builds(model_format).digest

    def ready(self) -> list[str]:
        """See `Session`: cool enough, or a note that it never was."""
        deadline = time.monotonic() + self._settings.cool_down_seconds
        while True:
            hottest = self._patiently(self._hottest_celsius)
            if hottest is None or hottest <= self._settings.max_start_celsius:
                return []
            if time.monotonic() >= deadline:
                return [
                    f"the device was at {hottest:.1f} °C after {self._settings.cool_down_seconds:.0f} s of cooling, "
                    f"above {self._settings.max_start_celsius:.1f} °C: timings are disturbed"
                ]
            time.sleep(self._settings.poll_seconds)

    def start(self, call: EngineCall, follow: Callable[[str], None]) -> int:
        """See `Session`."""
        # The same call has the same folder on the device, where it finds what an earlier start of it left.
        words = (call.sha256, sha256_file(call.features), call.protocol.model_dump_json(), str(call.skip_accuracy))
        work = f"{ROOT}/work/{hashlib.sha256(' '.join(words).encode()).hexdigest()[:16]}"
        lost, reached = 0, 0

        def heard(line: str) -> None:
            nonlocal lost, reached
            parts = line.split()
            if len(parts) == 3 and parts[0] == "progress" and parts[1].isdecimal() and int(parts[1]) > reached:
                lost, reached = 0, int(parts[1])
            follow(line)

        while True:
            try:
                return self._once(call, work, heard)
            except _LostError as error:
                lost += 1
                if lost > self._settings.retries:
                    what = f"{self._device.name}: expected a device that stays, found it lost {lost} times: {error}"
                    raise VoxPressError(what) from None
                self._reconnect()

    def _once(self, call: EngineCall, work: str, follow: Callable[[str], None]) -> int:
        model, features = self._place(call.model), self._place(call.features)
        if call.weights is not None:
            # The model asks for them by their own name.
            self._shell(f"ln -sf {self._place(call.weights)} {ROOT}/files/{shlex.quote(call.weights.name)}")
        if self._settings.app is not None:
            return self._run_in_app(self._settings.app, call, work, model, features)
        build = self._device.builds(call.format)
        places = {path: self._place(path) for path in build.files}
        folder = f"{work}/lib"
        links = " && ".join(f"ln -sf {places[path]} {folder}/{shlex.quote(path.name)}" for path in build.files)
        # The runner knows its libraries by their own names; the folder of the call gives them these.
        self._shell(f"mkdir -p {work}/out {folder} && {links} && chmod 755 {places[build.runner]}")
        # An engine that outlived a lost connection would write into the same files.
        self._shell(f"if [ -f {work}/pid ]; then kill -9 $(cat {work}/pid) 2>/dev/null; rm -f {work}/pid; fi; true")
        options = [*call.options(model, features, f"{work}/out"), *build.options(lambda path: f"{folder}/{path.name}")]
        command = shlex.join([f"{folder}/{build.runner.name}", *options])
        line = f"export LD_LIBRARY_PATH={folder}; sh -c 'echo $$ > {work}/pid; exec {command}'; echo {_EXIT_MARK}$?"
        code = self._follow(line, follow)
        if code == 0:
            self._fetch(call, lambda name, target: self._pull(f"{work}/out/{name}", target))
            self._shell(f"rm -rf {work}")
        return code

    def _run_in_app(self, app: str, call: EngineCall, work: str, model: str, features: str) -> int:
        package = app.partition("/")[0]
        out = f"voxpress/{work.rpartition('/')[2]}"
        inside = f"run-as {package} cat files/{out}"
        arguments = ",".join(call.options(model, features, out))
        self._shell(f"run-as {package} rm -f files/{out}/{_EXIT_FILE}")
        self._shell(f"am start -W -n {app} --esa arguments {shlex.quote(arguments)}")
        deadline = time.monotonic() + self._settings.engine_seconds
        while not (code := self._shell(f"{inside}/{_EXIT_FILE} 2>/dev/null || true").strip()):
            if time.monotonic() > deadline:
                raise VoxPressError(f"{self._device.name}: expected {app} to end, found it running still")
            time.sleep(min(self._settings.poll_seconds, 1.0))
        if not code.lstrip("-").isdecimal():
            raise VoxPressError(f"{self._device.name}: expected an exit code from {app}, found {code!r}")
        if code == "0":
            self._fetch(call, lambda name, target: self._copy_out(f"{inside}/{name}", target))
            self._shell(f"run-as {package} rm -rf files/{out}")
        return int(code)

    def _fetch(self, call: EngineCall, get: Callable[[str, Path], None]) -> None:
        names = [ENGINE_FILE] if call.skip_accuracy else [EMBEDDINGS_FILE, ENGINE_FILE]
        for name in names:
            beside = call.out / f".{name}.part"
            get(name, beside)
            beside.replace(call.out / name)

    def _pull(self, source: str, target: Path) -> None:
        wanted = self._shell(f"sha256sum {source}").split()[:1]
        _adb(["pull", source, str(target)], self._device.serial, seconds=self._settings.transfer_seconds)
        if wanted != [sha256_file(target)]:
            raise _LostError(f"{source} came back with other bytes")

    def _copy_out(self, command: str, target: Path) -> None:
        with target.open("wb") as stream:
            done = subprocess.run(
                [_client(), "-s", self._device.serial, "exec-out", command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.PIPE,
                timeout=self._settings.transfer_seconds,
                check=False,
            )
        if done.returncode != 0:
            _refuse_or_lose(self._device.serial, command, done.stderr.decode(errors="replace"))

    def _place(self, path: Path) -> str:
        """Where a file is on the device, after pushing it if it is not there."""
        if path not in self._pushed:
            digest = sha256_file(path)
            self._pushed[path] = f"{ROOT}/files/{digest[:16]}-{re.sub(r'[^A-Za-z0-9_.-]', '_', path.name)}"
        place = self._pushed[path]
        if self._shell(f"[ -f {place} ] && echo there || true").strip() != "there":
            self._shell(f"mkdir -p {ROOT}/files {ROOT}/work")
            part = f"{place}.part"
            _adb(["push", str(path), part], self._device.serial, seconds=self._settings.transfer_seconds)
            found = self._shell(f"sha256sum {part}").split()[:1]
            if found != [sha256_file(path)]:
                raise _LostError(f"{path} arrived with other bytes")
            self._shell(f"mv {part} {place}")
        return place

    def _follow(self, line: str, follow: Callable[[str], None]) -> int:
        """Run a shell line whose last word is its exit code; its standard error goes to `follow`."""
        command = [_client(), "-s", self._device.serial, "shell", line]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            # A hung engine, or a hung client, is ended; what it then says counts as a lost device.
            timer = threading.Timer(self._settings.engine_seconds, process.kill)
            timer.start()
            try:
                last = ""
                for text in process.stderr or ():
                    follow(text)
                    last = text.strip() or last
                said = process.stdout.read() if process.stdout else ""
                process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
        mark = said.rpartition(_EXIT_MARK)
        if not mark[1] or not mark[2].strip().isdecimal():
            raise _LostError(last or "the shell ended without a word")
        return int(mark[2])

    def _hottest_celsius(self) -> float | None:
        said = self._shell("cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null || true").split()
        # Zones that are not wired up say 0, or minus hundreds.
        celsius = [int(word) / 1000 for word in said if word.lstrip("-").isdecimal()]
        return max((value for value in celsius if 0 < value < 150), default=None)

    def _shell(self, line: str) -> str:
        return _adb(["shell", line], self._device.serial).stdout

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        left = self._settings.retries
        while True:
            try:
                return ask()
            except _LostError as error:
                if left == 0:
                    what = f"{self._device.name}: expected a device that answers, found: {error}"
                    raise VoxPressError(what) from None
            left -= 1
            self._reconnect()

    def _reconnect(self) -> None:
        serial = self._device.serial
        # A device on the network is the client's to call; others come back by themselves.
        if ":" in serial:
            for words in (["disconnect", serial], ["connect", serial]):
                with suppress(VoxPressError, _LostError):
                    _adb(words, seconds=self._settings.wait_seconds)
        with suppress(VoxPressError, _LostError):
            _adb(["wait-for-device"], serial, seconds=self._settings.wait_seconds)


def _client() -> str:
    path = shutil.which("adb")
    if path is None:
        raise MissingToolError("adb: expected Android's client, found none; install Debian's adb")
    return path


def _adb(words: Sequence[str], serial: str | None = None, *, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the client. Raises _LostError if the connection broke, VoxPressError with its last line for all else."""
    command = [_client(), *(("-s", serial) if serial else ()), *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise _LostError(f"no answer to adb {words[0]} within {seconds:.0f} s") from None
    if done.returncode != 0:
        _refuse_or_lose(serial, " ".join(words[:2]), f"{done.stdout}\n{done.stderr}")
    return done


def _refuse_or_lose(serial: str | None, what: str, said: str) -> None:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "nothing said"
    where = f"adb:{serial}" if serial else "adb"
    if "No space left" in said:
        reason = next(line for line in lines if "No space left" in line)
        raise VoxPressError(f"{where}: expected room on the device, found: {reason}")
    if "unauthorized" in said:
        raise VoxPressError(f"{where}: expected a device that trusts this machine's key, found it unauthorized")
    if _LOST.search(said) or not lines:
        raise _LostError(last)
    raise VoxPressError(f"{where}: {what}: {last}")
