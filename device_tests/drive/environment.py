"""The machine a run is made on, as far as it lets itself be read."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from device_tests.records import Environment

PACKAGES = (
    *("ai-edge-litert", "executorch", "numpy", "safetensors", "torch"),
    *("MNN", "ncnn", "onnx", "onnxruntime", "openvino", "pnnx", "tensorflow", "torchao"),
)


def host_environment() -> Environment:
    """What this machine is: operating system, processor, memory, clock, load, and the versions of what runs on it."""
    cpu = _cpu_info()
    frequency = psutil.cpu_freq()
    return Environment(
        os=_os_name(),
        kernel=platform.release(),
        cpu_model=cpu.get("model name") or cpu.get("CPU part") or platform.machine(),
        cpu_features=tuple(sorted((cpu.get("flags") or cpu.get("Features") or "").split())),
        cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        governor=_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clock_hz=round(frequency.current * 1e6) if frequency is not None and frequency.current > 0 else None,
        load_average=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        voxpress=_version("voxpress") or "source tree",
        packages={name: found for name in PACKAGES if (found := _version(name)) is not None},
    )


def environment_notes(environment: Environment) -> list[str]:
    """What about the machine makes its timings less trustworthy."""
    notes = []
    load = environment.load_average
    if load is not None and load > 0.5 * environment.cores:
        notes.append(
            f"1-minute load was {load:.1f} on {environment.cores} cores as the run began: timings are disturbed"
        )
    if environment.governor is not None and environment.governor != "performance":
        notes.append(f"clock governor is {environment.governor!r}: the clock may have changed during the run")
    return notes


def _cpu_info() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo; empty where there is no such file."""
    text = _text("/proc/cpuinfo").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform(terse=True)


def _line(path: str) -> str | None:
    return _text(path).strip() or None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
