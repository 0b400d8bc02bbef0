"""The runtimes' libraries for 64-bit ARM Linux, from the wheels of the versions that this machine has.

    python -m device_tests.drive.fetch_runtime --lock requirements.lock --out build/aarch64/runtime

Wheels stay in `<out>/wheels` and are fetched once per version; headers, libraries and CMake files are unpacked beside.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from pipeline.errors import InputError, MissingToolError, VoxPressError

_PACKAGES = ("executorch", "ai-edge-litert")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
# Of each wheel, what a program is compiled with and run by; their Python code is of no use here.
_WANTED = ("executorch/include/", "executorch/lib/", "executorch/share/", "ai_edge_litert/libLiteRt.so")


def locked(lock: Path) -> list[str]:
    """The lock file's lines `name==version` of the runtimes. Raises InputError if one is not there."""
    try:
        lines = [line.split()[0] for line in lock.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(lock, expected="a requirements lock file", found=error.strerror or str(error)) from None
    found = [line for name in _PACKAGES for line in lines if line.startswith(f"{name}==")]
    if len(found) != len(_PACKAGES):
        raise InputError(
            lock, expected=f"exact versions of {' and '.join(_PACKAGES)}", found=", ".join(found) or "none"
        )
    return found


def fetch_runtime(lock: Path, out: Path) -> None:
    """Fetch and unpack the wheels of `lock` into `out`. Raises MissingToolError if a wheel cannot be fetched."""
    wheels = out / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for requirement in locked(lock):
        name, version = requirement.split("==")
        pattern = f"{name.replace('-', '_')}-{version}-*aarch64.whl"
        if not list(wheels.glob(pattern)):
            _download(requirement, wheels)
        (wheel,) = wheels.glob(pattern)
        _unpack(wheel, out)


def _download(requirement: str, wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.11", "--dest", str(wheels)]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise MissingToolError(
            f"{requirement}: expected its wheel for aarch64, found: {said[-1] if said else 'nothing'}"
        )


def _unpack(wheel: Path, out: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.filename.startswith(_WANTED) and not entry.is_dir():
                path = out / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fetch_runtime", description=__doc__.splitlines()[0])
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--out", type=Path, default=Path("build/aarch64/runtime"))
    options = parser.parse_args(arguments)
    try:
        fetch_runtime(options.lock, options.out)
    except VoxPressError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
