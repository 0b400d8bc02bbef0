"""The harness's builds for phones, as far as they go without an NDK or Xcode.

Toolchain files are configured with stand-ins for what they include, and sources are parsed for the targets' triples and
branches. What this cannot show: that bionic, Apple's headers and their linkers take them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NEEDS_TOOL

ROOT = Path(__file__).resolve().parents[3]
HARNESS = ROOT / "device_tests" / "harness"
TOOLCHAINS = HARNESS / "cmake"
CROSS = Path("/usr/aarch64-linux-gnu/include")
COMPILER = "aarch64-linux-gnu-g++"
SOURCES = sorted([*HARNESS.glob("*.cc"), *(ROOT / "device_tests" / "core").glob("*.cc")])
PORTABLE = [source for source in SOURCES if source.name not in ("executorch_engine.cc", "main.cc")]
APPLE_BRANCHES = [HARNESS / "machine.cc", HARNESS / "process_memory.cc", ROOT / "exporters/kernels/base/isa.cc"]
ASKED_OF_NDK = {"ANDROID_ABI": "arm64-v8a", "ANDROID_PLATFORM": "android-26", "ANDROID_STL": "c++_static"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{NEEDS_TOOL}g++-aarch64-linux-gnu"),
]

# What both stand-ins do: cross-compile with the compiler at hand, which is neither platform's.
CROSS_COMPILER = f"""
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER {COMPILER})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
"""


def configure(
    toolchain: Path, build: Path, **environment: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """Configure the tree without ExecuTorch; the outcome and the cache's variables."""
    words = [
        "-S",
        str(ROOT),
        "-B",
        str(build),
        "-G",
        "Ninja",
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain}",
        "-DVOXPRESS_EXECUTORCH=OFF",
    ]
    words.append(f"-DCMAKE_MAKE_PROGRAM={Path(sys.executable).with_name('ninja')}")
    kept = {name: value for name, value in os.environ.items() if name != "ANDROID_NDK"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cmake")), *words],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    cache = build / "CMakeCache.txt"
    lines = cache.read_text().splitlines() if cache.is_file() else []
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith(("#", "//"))]
    return done, {name.partition(":")[0]: value for name, _, value in pairs}


def targets(build: Path) -> str:
    return (build / "build.ninja").read_text()


def test_android_configures_with_the_ndks_file(tmp_path: Path) -> None:
    ndk = tmp_path / "ndk/build/cmake/android.toolchain.cmake"
    ndk.parent.mkdir(parents=True)
    asked = "".join(f'set(SEEN_{name} "${{{name}}}" CACHE INTERNAL "")\n' for name in ASKED_OF_NDK)
    ndk.write_text(asked + CROSS_COMPILER + "set(ANDROID TRUE)\n")
    done, cache = configure(TOOLCHAINS / "android-arm64.cmake", tmp_path / "build", ANDROID_NDK=str(tmp_path / "ndk"))
    assert done.returncode == 0, done.stderr
    assert {name: cache[f"SEEN_{name}"] for name in ASKED_OF_NDK} == ASKED_OF_NDK
    made = targets(tmp_path / "build")
    assert "voxpress_tflite_runner" in made
    assert "libvoxpress_tflite_delegate.so" in made
    assert "voxpress_fuzz" not in made  # nothing that is run where it is built

    done, _ = configure(TOOLCHAINS / "android-arm64.cmake", tmp_path / "none")
    assert done.returncode != 0
    assert "expected the folder of an Android NDK" in " ".join(done.stderr.split())


def test_ios_builds_libraries_and_no_programs(tmp_path: Path) -> None:
    # CMake asks Xcode for its compiler as soon as it hears of iOS; all else is the file's.
    around = tmp_path / "ios.cmake"
    around.write_text(
        f'include("{TOOLCHAINS / "ios-arm64.cmake"}")\n'
        'set(SEEN "${CMAKE_SYSTEM_NAME} ${CMAKE_OSX_ARCHITECTURES} ${CMAKE_OSX_DEPLOYMENT_TARGET}" CACHE INTERNAL "")\n'
        + CROSS_COMPILER
        + "set(IOS TRUE)\n"
    )
    done, cache = configure(around, tmp_path / "build")
    assert done.returncode == 0, done.stderr
    assert cache["SEEN"] == "iOS arm64 15.0"
    made = targets(tmp_path / "build")
    assert "libvoxpress_harness.a" in made
    assert "libvoxpress_tflite_engine.a" in made
    assert "voxpress_tflite_runner" not in made


@pytest.mark.skipif(shutil.which("clang++") is None, reason=f"{NEEDS_TOOL}clang")
def test_sources_are_valid_for_androids_triple() -> None:
    headers = [CROSS / "c++" / name for name in ("12", "12/aarch64-linux-gnu")] + [CROSS]
    command = ["clang++", "--target=aarch64-linux-android26", "-nostdinc++"]
    for header in headers:
        command += ["-isystem", str(header)]
    parse(command, PORTABLE)


def test_apples_branches_are_valid(tmp_path: Path) -> None:
    stand_ins = Path(__file__).with_name("apple")
    parse([COMPILER, "-D__APPLE__", "-U__linux__", "-isystem", str(stand_ins)], APPLE_BRANCHES)
    wrong = tmp_path / "wrong.cc"
    wrong.write_text("#if defined(__APPLE__)\nint f() { return missing; }\n#endif\n")
    with pytest.raises(AssertionError, match="missing"):
        parse([COMPILER, "-D__APPLE__"], [wrong])


def parse(command: list[str], sources: list[Path]) -> None:
    """Parse sources as C++17 with the harness's warnings as errors."""
    folders = ("exporters/kernels", "exporters", "device_tests/harness", "device_tests/core")
    options = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *(f"-I{ROOT / one}" for one in folders)]
    done = subprocess.run([*command, *options, *map(str, sources)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
