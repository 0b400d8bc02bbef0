"""The C API as Swift's importer sees it: plain C with nullability, from C and C++, on this machine and on ARM."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from exporters.native import native_path
from tests.device_tests.core.programs import CROSS, HEADER, STRICT, arm, check_session, needs_arm, run_program
from tests.device_tests.core.signed import Signed

ROOT = Path(__file__).resolve().parents[2]
DELEGATE_HEADER = ROOT / "ios" / "Native" / "tflite" / "include" / "voxpress_tflite_delegate.h"
SESSION = Path(__file__).parent / "native" / "session.c"
needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="needs Debian's clang")


@pytest.mark.parametrize("header", [HEADER, DELEGATE_HEADER], ids=lambda path: path.name)
@pytest.mark.parametrize("standard", ["c11", "c17", "c++17", "c++20"])
def test_headers_stand_alone_in_both_languages(header: Path, standard: str) -> None:
    language = "c++" if "+" in standard else "c"
    compiler = "g++" if "+" in standard else "gcc"
    run_program(compiler, "-x", language, f"-std={standard}", *STRICT, "-fsyntax-only", header)


@needs_clang
@pytest.mark.parametrize("header", [HEADER, DELEGATE_HEADER], ids=lambda path: path.name)
@pytest.mark.parametrize("language", ["c", "c++", "objective-c"])
def test_every_pointer_says_whether_it_may_be_null(header: Path, language: str) -> None:
    nullability = ("-Wnullability-completeness", "-Wnullability", "-Wno-nullability-extension")
    run_program("clang", "-x", language, *STRICT, *nullability, "-fsyntax-only", header)


@needs_clang
def test_the_module_is_what_swift_imports(tmp_path: Path) -> None:
    source = tmp_path / "import.c"
    source.write_text(
        "#pragma clang module import CVoxPress\n#pragma clang module import CVoxPressTFLite\n"
        "VoxpressHandle handle; void* (*make)(const char* const*, const char* const*, size_t, void (*)(const char*))"
        " = tflite_plugin_create_delegate;\n"
    )
    maps = [ROOT / "ios" / "Native" / name / "module.modulemap" for name in ("include", "tflite/include")]
    flags = [f"-fmodule-map-file={path}" for path in maps]
    run_program("clang", "-fmodules", f"-fmodules-cache-path={tmp_path}/cache", *flags, "-fsyntax-only", source)


def test_the_header_holds_no_cpp() -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    guarded = re.sub(r"#ifdef __cplusplus\n.*?#endif\n", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(class|namespace|template|std::|extern|bool|nullptr|throw)\b", guarded)


@pytest.mark.parametrize("compiler", [("gcc", "-std=c11", "-x", "c"), ("g++", "-std=c++17", "-x", "c++")])
def test_a_program_in_c_and_in_cpp_decides_as_python_does(
    signed: Signed, tmp_path: Path, compiler: tuple[str, ...]
) -> None:
    native, target = native_path("voxpress").parent, tmp_path / "session"
    link = (f"-L{native}", "-lvoxpress", f"-Wl,-rpath,{native}")
    run_program(*compiler, *STRICT, "-O1", f"-I{HEADER.parent}", SESSION, *link, "-o", target)
    check_session(signed, tmp_path, [str(target)], {}, trials=99)


@needs_arm
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pte", "litert", "interpreter"])
def test_the_program_for_arm_decides_as_python_does(signed: Signed, tmp_path: Path, engine: str) -> None:
    """Under an emulator, on each runtime's own library for ARM."""
    target, program = arm(), tmp_path / "session"
    run_program(f"{CROSS}gcc", "-std=c11", *STRICT, "-O1", f"-I{HEADER.parent}", SESSION, *target.link, "-o", program)
    check_session(signed, tmp_path, [*target.launcher, str(program)], target.environment(engine), trials=4)
