"""The tests of kernels and delegate once more against a build with AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.kernels.sanitized import ROOT, sanitized_build

SUITES = (
    "tests/kernels/test_unpack.py",
    "tests/kernels/test_conv2d.py",
    "tests/kernels/test_conv2d_u8.py",
    "tests/kernels/test_stats_pool.py",
    "tests/kernels/test_fbank.py",
    "tests/exporters/test_long_audio.py",
    "tests/exporters/prepared",
    "tests/exporters/tflite/test_delegate.py",
    "tests/exporters/tflite/test_fbank_kernel.py",
    "tests/exporters/tflite/test_litert_capi.py",
)
# Says that a buffer has 100 bytes when it has 10; only a sanitizer that is awake notices.
OVERRUN = """
import ctypes
from tests.kernels.capi import library
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
library().voxpress_unpack(libc.malloc(10), 100, 8, 0, 100, ctypes.create_string_buffer(100))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Variables under which Python runs with the sanitizers and a build of ours that has them."""
    runtimes = [
        subprocess.run(["c++", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        # Leaks are not looked for: the interpreter itself keeps memory to its end. Python's own allocator would hide
        # small overruns, so the tests' buffers come from malloc.
        "ASAN_OPTIONS": "detect_leaks=0,handle_segv=0",
        "UBSAN_OPTIONS": "halt_on_error=1,print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "VOXPRESS_NATIVE_DIR": str(sanitized_build()),
    }


def _python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_sanitizer_is_awake(environment: dict[str, str]) -> None:
    result = _python(environment, "-c", OVERRUN)
    assert result.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in result.stderr


@pytest.mark.slow
def test_kernels_and_delegate_are_clean_under_sanitizers(environment: dict[str, str]) -> None:
    result = _python(environment, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SUITES)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
