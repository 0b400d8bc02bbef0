"""Devices that run engines as processes of this machine: the host itself, and aarch64 under an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from device_tests.drive.build import Build, aarch64_build, host_build
from device_tests.drive.device import EngineCall
from device_tests.records import DeviceClass, ModelFormat
from pipeline.errors import MissingToolError, VoxPressError

EMULATOR = "qemu-aarch64-static"
EMULATED_CPU = "neoverse-n1"
# Debian's cross libraries; the emulator finds the loader and libc there.
CROSS_ROOT = Path("/usr/aarch64-linux-gnu")

# What the emulated processor would say of itself. The emulator shows its host's file instead, in which the runtimes
# find no ARM processor, and die.
_CPUINFO = """processor\t: {index}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""


@dataclass(frozen=True)
class ProcessSession:
    """Engines started as processes, `prefix` before their command."""

    builds: Callable[[ModelFormat], Build]
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def engine_digest(self, model_format: ModelFormat) -> str:
        """See `Session`."""
        return self.builds(model_format).digest

    def ready(self) -> list[str]:
        """See `Session`: this machine is as ready as it is."""
        return []

    def start(self, call: EngineCall, follow: Callable[[str], None]) -> int:
        """See `Session`. The process never outlives this call."""
        build = self.builds(call.format)
        command = [
            *self.prefix,
            str(build.runner),
            *call.options(str(call.model), str(call.features), str(call.out)),
            *build.options(lambda path: str(path.resolve())),
        ]
        with _start(command, self.environment) as process:
            try:
                for line in process.stderr or ():
                    follow(line)
                return process.wait()
            except BaseException:
                process.kill()
                raise


@dataclass(frozen=True)
class HostDevice:
    """The machine we are on. `builds` replaces the programs that run the formats."""

    name: str = "host"
    device_class: DeviceClass = "host"
    latency_valid: bool = True
    builds: Callable[[ModelFormat], Build] = host_build

    def describe(self) -> str:
        """See `Device`."""
        return f"this machine, {os.uname().machine}, {os.cpu_count()} cores"

    @contextmanager
    def open(self) -> Iterator[ProcessSession]:
        """See `Device`."""
        yield ProcessSession(self.builds)


@dataclass(frozen=True)
class EmulatedDevice:
    """64-bit ARM Linux under qemu-user: real NEON code and the runtimes' real aarch64 libraries, no timings."""

    name: str = "qemu-aarch64"
    device_class: DeviceClass = "emulator"
    latency_valid: bool = False
    builds: Callable[[ModelFormat], Build] = aarch64_build

    def describe(self) -> str:
        """See `Device`."""
        if missing := _missing_for_emulation():
            return f"not usable here: {missing}"
        try:
            self.builds("tflite")
        except MissingToolError as error:
            return f"not usable here: {error}"
        return f"64-bit ARM Linux under {EMULATOR}, {EMULATED_CPU}; timings mean nothing"

    @contextmanager
    def open(self) -> Iterator[ProcessSession]:
        """See `Device`."""
        if missing := _missing_for_emulation():
            raise MissingToolError(f"{self.name}: {missing}")
        with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
            root = Path(name)
            (root / "lib").symlink_to(CROSS_ROOT / "lib")
            (root / "proc").mkdir()
            cores = range(os.cpu_count() or 1)
            (root / "proc" / "cpuinfo").write_text("".join(_CPUINFO.format(index=index) for index in cores))
            libraries = self.builds("pte").libraries
            folders = ":".join(sorted({str(path.parent) for path in libraries}))
            prefix = (EMULATOR, "-cpu", EMULATED_CPU, "-L", name, "-E", f"LD_LIBRARY_PATH={folders}")
            yield ProcessSession(self.builds, prefix)


def _missing_for_emulation() -> str:
    if shutil.which(EMULATOR) is None:
        return f"expected {EMULATOR}, found none; install Debian's qemu-user-static"
    if not (CROSS_ROOT / "lib").is_dir():
        return f"expected {CROSS_ROOT}/lib, found none; install Debian's g++-aarch64-linux-gnu"
    return ""


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
        )
    except OSError as error:
        raise VoxPressError(f"{command[0]}: could not be started: {error.strerror or error}") from error
