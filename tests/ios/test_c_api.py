"""The C API as Swift's importer sees it: plain C with nullability, from C and C++, on this machine and on ARM."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exporters.native import native_path
from tests.android.jvm_session import write_samples
from tests.device_tests.core.signed import Reference, Signed, public_pem, synthetic_voices, trials_of

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "device_tests" / "core" / "voxpress.h"
DELEGATE_HEADER = ROOT / "ios" / "Native" / "tflite" / "include" / "voxpress_tflite_delegate.h"
SESSION = Path(__file__).parent / "native" / "session.c"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
ARM = ROOT / "build" / "aarch64"
CROSS, EMULATOR = "aarch64-linux-gnu-", "qemu-aarch64-static"
needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="needs Debian's clang")
needs_arm = pytest.mark.skipif(
    shutil.which(f"{CROSS}gcc") is None or shutil.which(EMULATOR) is None,
    reason="needs Debian's g++-aarch64-linux-gnu and qemu-user-static",
)


def _run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.mark.parametrize("header", [HEADER, DELEGATE_HEADER], ids=lambda path: path.name)
@pytest.mark.parametrize("standard", ["c11", "c17", "c++17", "c++20"])
def test_headers_stand_alone_in_both_languages(header: Path, standard: str) -> None:
    language = "c++" if "+" in standard else "c"
    compiler = "g++" if "+" in standard else "gcc"
    _run(compiler, "-x", language, f"-std={standard}", *STRICT, "-fsyntax-only", header)


@needs_clang
@pytest.mark.parametrize("header", [HEADER, DELEGATE_HEADER], ids=lambda path: path.name)
@pytest.mark.parametrize("language", ["c", "c++", "objective-c"])
def test_every_pointer_says_whether_it_may_be_null(header: Path, language: str) -> None:
    nullability = ("-Wnullability-completeness", "-Wnullability", "-Wno-nullability-extension")
    _run("clang", "-x", language, *STRICT, *nullability, "-fsyntax-only", header)


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
    _run("clang", "-fmodules", f"-fmodules-cache-path={tmp_path}/cache", *flags, "-fsyntax-only", source)


def test_the_header_holds_no_cpp() -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    guarded = re.sub(r"#ifdef __cplusplus\n.*?#endif\n", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(class|namespace|template|std::|extern|bool|nullptr|throw)\b", guarded)


def check_session(signed: Signed, tmp_path: Path, run: list[str], environment: dict[str, str], trials: int) -> None:
    """Run a build of session.c over a bundle and compare its decisions with Python's."""
    keys, signature = tmp_path / "key.pem", tmp_path / "signature"
    keys.write_bytes(public_pem())
    stored = json.loads((signed.folder / "signature.json").read_text())
    signature.write_bytes(base64.b64decode(stored["signature"]))
    reference = Reference(signed.artifact, signed.manifest)
    for speaker, enrolment, tests in trials_of(synthetic_voices(tmp_path / "voices")):
        files = write_samples(tmp_path / speaker, [*enrolment, *tests[:trials]])
        done = _run(*run, signed.folder, keys, signature, *files, env={**os.environ, **environment})
        assert done.stderr.splitlines()[-1].endswith("found a signature of other bytes")
        voice = reference.enroll(*enrolment)
        lines = done.stdout.splitlines()
        for line, samples in zip(lines, tests[:trials], strict=True):
            score, llr, accepted = line.split()
            expected = reference.verify(voice, samples)
            assert bool(int(accepted)) == expected.accepted
            assert float(score) == pytest.approx(expected.score, abs=2e-5)
            assert float(llr) == pytest.approx(expected.llr, abs=2e-5 * (1 + abs(reference.llr.slope)))


@pytest.mark.parametrize("compiler", [("gcc", "-std=c11", "-x", "c"), ("g++", "-std=c++17", "-x", "c++")])
def test_a_program_in_c_and_in_cpp_decides_as_python_does(
    signed: Signed, tmp_path: Path, compiler: tuple[str, ...]
) -> None:
    native, target = native_path("voxpress").parent, tmp_path / "session"
    link = (f"-L{native}", "-lvoxpress", f"-Wl,-rpath,{native}")
    _run(*compiler, *STRICT, "-O1", f"-I{HEADER.parent}", SESSION, *link, "-o", target)
    check_session(signed, tmp_path, [str(target)], {}, trials=99)


@needs_arm
@pytest.mark.slow
def test_the_android_code_for_arm_decides_as_python_does(signed: Signed, tmp_path: Path) -> None:
    """The JNI layer compiles strictly, and the core that it calls runs under an emulator, on LiteRT."""
    java = shutil.which("javac")
    if java is None:
        pytest.skip("needs Debian's openjdk-17-jdk-headless")
    native = ARM / "native"
    home = Path(java).resolve().parents[1]
    includes = (f"-I{home / 'include'}", f"-I{home / 'include' / 'linux'}", f"-I{HEADER.parent}")
    source = ROOT / "android" / "voxpress" / "src" / "main" / "cpp" / "voxpress_jni.cc"
    libraries = (f"-L{native}", "-lvoxpress", "-lvoxpress_tflite_delegate", "-Wl,-z,max-page-size=16384")
    jni = tmp_path / "libvoxpress_jni.so"
    shared = ("-shared", "-fPIC", "-Wl,--allow-shlib-undefined")
    _run(f"{CROSS}g++", "-std=c++17", "-O2", *STRICT, *shared, *includes, source, *libraries, "-o", jni)
    loads = [line for line in _run("readelf", "-lW", jni).stdout.splitlines() if line.strip().startswith("LOAD")]
    assert loads
    assert all(line.split()[-1] == "0x4000" for line in loads), loads

    target = tmp_path / "session"
    runtime = ARM / "runtime"
    rpath = f"-Wl,-rpath,{native}:{runtime / 'executorch' / 'lib'}"
    _run(f"{CROSS}gcc", "-std=c11", "-O1", includes[-1], SESSION, f"-L{native}", "-lvoxpress", rpath,
         "-Wl,--allow-shlib-undefined", "-o", target)  # fmt: skip
    (litert,) = (path for path in runtime.rglob("libLiteRt.so"))
    environment = {
        "VOXPRESS_FORMAT": "tflite",
        "VOXPRESS_RUNTIME": str(litert),
        "VOXPRESS_DELEGATE": str(native / "libvoxpress_tflite_delegate.so"),
    }
    check_session(signed, tmp_path, [EMULATOR, "-L", "/usr/aarch64-linux-gnu", str(target)], environment, trials=4)
