"""The JNI layer without a JVM, for this machine and, under an emulator, for the processor of phones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.android.jvm_session import java_home
from tests.device_tests.core.programs import (
    HEADER,
    ROOT,
    STRICT,
    Target,
    arm,
    check_session,
    host,
    needs_arm,
    run_program,
)
from tests.device_tests.core.signed import Signed

LAYER = ROOT / "android" / "voxpress" / "src" / "main" / "cpp" / "voxpress_jni.cc"
SESSION = Path(__file__).parent / "native" / "jni_session.cc"
PAGES = "-Wl,-z,max-page-size=16384"
pytestmark = pytest.mark.skipif(shutil.which("javac") is None, reason="needs Debian's openjdk-17-jdk-headless")


def build(target: Target, folder: Path) -> tuple[Path, Path]:
    """The JNI library, as CMake builds it for Android, and the program that calls it."""
    home = java_home()
    includes = (f"-I{home / 'include'}", f"-I{home / 'include' / 'linux'}", f"-I{HEADER.parent}")
    compiler = (f"{target.cross}g++", "-std=c++17", "-O2", "-g", *STRICT, *includes)
    library, program = folder / "libvoxpress_jni.so", folder / "jni_session"
    run_program(*compiler, "-fvisibility=hidden", "-shared", "-fPIC", LAYER, *target.link, PAGES, "-o", library)
    rpath = f"-Wl,-rpath,{folder}"
    run_program(*compiler, SESSION, f"-L{folder}", "-lvoxpress_jni", *target.link, rpath, "-pthread", "-o", program)
    return library, program


# What the calls throw, in order: class, then the reason.
REFUSED, CLOSED = "org/voxpress/VoxPressException: ", "java/lang/IllegalStateException: "
ENDED = f"{CLOSED}expected an open bundle, found one that was closed"
EXCEPTIONS = [
    f"{REFUSED}enrolment: expected at least one utterance, found none",
    f"{REFUSED}utterance: expected at least 4800 samples, found 1",
    f"{REFUSED}voice: expected an enrolled voice, found 3 bytes",
    f"{REFUSED}utterance: expected at least 4800 samples, found 0",
    "2 --model: expected a file of .pte or .tflite, found none",
    ENDED,
    ENDED,
    ENDED,
]


def check(target: Target, signed: Signed, tmp_path: Path, engine: str, trials: int) -> None:
    _, program = build(target, tmp_path)
    said = check_session(signed, tmp_path, [*target.launcher, str(program)], target.environment(engine), trials=trials)
    for lines in said:
        # Runtimes speak of themselves on the same stream.
        thrown = [line for line in lines if re.match(r"(org|java)/|2 ", line)]
        assert thrown[:-1] == EXCEPTIONS
        assert thrown[-1].startswith(REFUSED)


@pytest.mark.parametrize("engine", ["pte", "interpreter"])
def test_the_layer_decides_and_throws_as_it_should(signed: Signed, tmp_path: Path, engine: str) -> None:
    check(host(), signed, tmp_path, engine, trials=99)


@needs_arm
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pte", "interpreter"])
def test_on_arm_too(signed: Signed, tmp_path: Path, engine: str) -> None:
    check(arm(), signed, tmp_path, engine, trials=4)


@needs_arm
def test_the_library_fits_to_large_pages_and_exports_its_functions_alone(tmp_path: Path) -> None:
    library, _ = build(arm(), tmp_path)
    lines = run_program("readelf", "-lW", library).stdout.splitlines()
    loads = [line.split() for line in lines if line.strip().startswith("LOAD")]
    assert loads
    assert {words[-1] for words in loads} == {"0x4000"}
    symbols = run_program("nm", "-D", "--defined-only", library).stdout.split("\n")
    ours = {line.split()[-1] for line in symbols if " T " in line}
    assert ours == set(re.findall(r"Java_org_voxpress_Native_\w+(?=\()", LAYER.read_text()))
