"""Devices by the names that people type."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_tests.drive.adb import AdbDevice, AdbSettings, android_build, attached_devices
from device_tests.drive.build import Build, aarch64_build, build_in, host_build
from device_tests.drive.device import Device
from device_tests.drive.ios import attached_ios_devices
from device_tests.drive.process import EmulatedDevice, HostDevice
from device_tests.records import ModelFormat
from pipeline.errors import InputError, MissingToolError


@dataclass(frozen=True)
class Choice:
    """How devices are to be used, where they leave a choice."""

    build: str = "android"  # of adb devices: "android", "host", "aarch64", or a folder with native/ and runtime/
    adb: AdbSettings = field(default_factory=AdbSettings)
    ios_app: str = "org.voxpress.benchmark"


def build_named(name: str) -> Callable[[ModelFormat], Build]:
    """The builds of a name, or of a folder with `native/` and `runtime/`."""
    known: dict[str, Callable[[ModelFormat], Build]] = {
        "android": android_build,
        "host": host_build,
        "aarch64": aarch64_build,
    }
    if name in known:
        return known[name]
    folder = Path(name)
    if not folder.is_dir():
        raise InputError("--build", expected=f"{', '.join(known)} or a folder", found=name)
    return functools.partial(build_in, folder / "native", folder / "runtime", made_by="build it with cmake")


def known_devices(choice: Choice) -> list[Device]:
    """Every device there is now: the host, the emulator, and what is attached, where its tool is installed."""
    devices: list[Device] = [HostDevice(), EmulatedDevice()]
    for attached in (lambda: _adb_devices(choice), lambda: attached_ios_devices(choice.ios_app)):
        try:
            devices += attached()
        except MissingToolError:
            continue  # no client, no devices of its kind
    return devices


def chosen_devices(names: list[str], choice: Choice) -> list[Device]:
    """The devices of some names; `adb:*` and `ios:*` are all that are attached. Raises InputError for unknown ones."""
    chosen: list[Device] = []
    for name in names:
        kind, _, which = name.partition(":")
        if name == "host":
            found: list[Device] = [HostDevice()]
        elif name == "qemu-aarch64":
            found = [EmulatedDevice()]
        elif kind in ("adb", "ios") and which:
            attached = _adb_devices(choice) if kind == "adb" else list(attached_ios_devices(choice.ios_app))
            found = [device for device in attached if which in ("*", device.name.partition(":")[2])]
            if not found:
                there = ", ".join(device.name for device in attached) or "none"
                raise InputError("--device", expected=f"{name} among the attached devices", found=there)
        else:
            raise InputError("--device", expected="host, qemu-aarch64, adb:SERIAL, adb:* or ios:IDENTIFIER", found=name)
        chosen += [device for device in found if device.name not in {one.name for one in chosen}]
    return chosen


def _adb_devices(choice: Choice) -> list[Device]:
    builds = build_named(choice.build)
    return [AdbDevice(one.serial, one.state, builds, choice.adb) for one in attached_devices()]
