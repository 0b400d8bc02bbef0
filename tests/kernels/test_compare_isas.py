"""The comparison program that needs no Python: here, and cross-compiled for aarch64 under an emulator."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.native import native_path
from tests.kernels.capi import isas

ROOT = Path(__file__).resolve().parents[2]
FAST = ("winograd4_u8", "winograd2_u8", "dwconv2d_u8", "conv2d_u8", "conv2d_f32")
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"


def _compare(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def _tool(name: str) -> str:
    """A build tool of this environment, or of the PATH."""
    beside_python = Path(sys.executable).parent / name
    return str(beside_python) if beside_python.is_file() else name


def test_instruction_sets_of_this_machine_agree_with_the_formula() -> None:
    output = _compare(native_path("kernels_capi").with_name("voxpress_compare_isas"), "60")
    exact = [isa for isa in isas() if isa in ("portable", "neon", "avx2", "avx512")]
    fast = [isa for isa in isas() if isa != "avx512"]
    for isa in exact:
        for op in ("winograd4", "winograd2", "conv2d", "dwconv2d"):
            assert re.search(rf"\b{op}_f32_panel_\w+_{isa}\b", output)
    for kernel in FAST:
        assert all(re.search(rf"\b{kernel}_panel8_\w+_{isa}\b", output) for isa in fast if isa != "portable"), kernel
    assert f"{60 * 2 * len(exact)} comparisons, 0 failures" in output
    assert f"conv2d_u8: {60 * 2 * len(fast)} comparisons, 0 failures" in output


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None,
    reason="needs Debian's g++-aarch64-linux-gnu and qemu-user-static",
)
def test_neon_agrees_with_the_formula_under_an_emulator(tmp_path: Path) -> None:
    options = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}", "-DVOXPRESS_EXECUTORCH=OFF"]
    options += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}"]
    options += ["-DCMAKE_EXE_LINKER_FLAGS=-static"]
    build = ["--build", str(tmp_path), "-j2", "--target", "voxpress_compare_isas"]
    for command in (["-S", str(ROOT), "-B", str(tmp_path), *options], build):
        subprocess.run([_tool("cmake"), *command], check=True, capture_output=True)
    output = _compare(EMULATOR, tmp_path / "voxpress_compare_isas", "60")
    for op in ("winograd4", "winograd2", "conv2d", "dwconv2d"):
        assert f"{op}_f32_panel" in output
    assert "conv2d_f32_panel_6x16_neon" in output
    for isa in ("neon", "neondot"):
        assert all(re.search(rf"\b{kernel}_panel8_\w+_{isa}\b", output) for kernel in FAST)
    assert "240 comparisons, 0 failures" in output
    assert "conv2d_u8: 360 comparisons, 0 failures" in output
