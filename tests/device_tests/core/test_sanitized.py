"""The core under AddressSanitizer and UndefinedBehaviorSanitizer, leaks included: a session from C, on LiteRT."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from exporters.native import native_path
from tests.device_tests.core.programs import HEADER, ROOT, check_session, host
from tests.device_tests.core.signed import Signed
from tests.ios.test_c_api import SESSION

SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
NOT_HERE = {"main.cc", "executorch_engine.cc"}


@pytest.mark.slow
def test_a_session_is_clean_under_sanitizers(signed: Signed, tmp_path: Path) -> None:
    native = native_path("voxpress").parent
    folders = [ROOT / "device_tests" / name for name in ("core", "harness")]
    includes = [f"-I{folder}" for folder in (*folders, ROOT / "exporters" / "kernels")]
    sources = [path for folder in folders for path in sorted(folder.glob("*.cc")) if path.name not in NOT_HERE]
    session, program = tmp_path / "session.o", tmp_path / "session"
    kernels = native / "exporters" / "kernels" / "libvoxpress_kernels.a"
    for command in (
        ("gcc", "-std=c11", *SANITIZE, f"-I{HEADER.parent}", "-c", SESSION, "-o", session),
        ("g++", "-std=c++17", *SANITIZE, "-DVOXPRESS_CORE_TFLITE", *includes, *sources, session, kernels, "-ldl",
         "-o", program),
    ):  # fmt: skip
        subprocess.run([str(word) for word in command], check=True)
    for engine in ("litert", "interpreter"):
        environment = {**host().environment(engine), "UBSAN_OPTIONS": "print_stacktrace=1"}
        (tmp_path / engine).mkdir()
        check_session(signed, tmp_path / engine, [str(program)], environment, trials=4)
