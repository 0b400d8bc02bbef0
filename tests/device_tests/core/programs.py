"""Programs over the apps' core, for this machine and for 64-bit ARM, whose decisions are compared with Python's."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_tests.drive.build import aarch64_build, host_build
from exporters.native import native_path
from tests.android.jvm_session import write_samples
from tests.device_tests.core.signed import Reference, Signed, public_pem, synthetic_voices, trials_of
from tests.device_tests.interpreter import interpreter_library

ROOT = Path(__file__).resolve().parents[3]
HEADER = ROOT / "device_tests" / "core" / "voxpress.h"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
CROSS, EMULATOR = "aarch64-linux-gnu-", "qemu-aarch64-static"
needs_arm = pytest.mark.skipif(
    shutil.which(f"{CROSS}gcc") is None or shutil.which(EMULATOR) is None,
    reason="needs Debian's g++-aarch64-linux-gnu and qemu-user-static",
)


def run_program(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@dataclass(frozen=True)
class Target:
    """A processor: how programs for it are built and run."""

    cross: str  # prefix of the compiler
    launcher: tuple[str, ...]
    native: Path  # folder of our libraries
    link: tuple[str, ...]
    litert: Path
    interpreter: Path

    def environment(self, engine: str) -> dict[str, str]:
        """Variables that choose an engine: "pte", "litert" (LiteRT 2) or "interpreter" (LiteRT 1)."""
        if engine == "pte":
            return {"VOXPRESS_FORMAT": "pte"}
        library = self.litert if engine == "litert" else self.interpreter
        return {
            "VOXPRESS_FORMAT": "tflite",
            "VOXPRESS_RUNTIME": str(library),
            "VOXPRESS_DELEGATE": str(self.native / "libvoxpress_tflite_delegate.so"),
        }


def host() -> Target:
    native, litert = native_path("voxpress").parent, host_build("tflite").runtime
    assert litert is not None
    link = (f"-L{native}", "-lvoxpress", "-lvoxpress_tflite_delegate", f"-Wl,-rpath,{native}")
    return Target("", (), native, link, litert, interpreter_library())


def arm() -> Target:
    build, pte = aarch64_build("tflite"), aarch64_build("pte")
    assert build.runtime is not None
    native = build.runner.parent
    link = (
        f"-L{native}",
        "-lvoxpress",
        "-lvoxpress_tflite_delegate",
        f"-Wl,-rpath,{native}:{pte.libraries[0].parent}",
        "-Wl,--allow-shlib-undefined",
    )
    launcher = (EMULATOR, "-L", "/usr/aarch64-linux-gnu")
    return Target(CROSS, launcher, native, link, build.runtime, interpreter_library("aarch64"))


def check_session(
    signed: Signed, tmp_path: Path, run: list[str], environment: dict[str, str], trials: int
) -> list[list[str]]:
    """Run a program over a bundle and compare its decisions with Python's; returns what each run said of failures.

    The program takes a bundle, public keys, the signature that it believes and samples, of which the first three enrol.
    """
    said = []
    keys, signature = tmp_path / "key.pem", tmp_path / "signature"
    keys.write_bytes(public_pem())
    stored = json.loads((signed.folder / "signature.json").read_text())
    signature.write_bytes(base64.b64decode(stored["signature"]))
    reference = Reference(signed.artifact, signed.manifest)
    for speaker, enrolment, tests in trials_of(synthetic_voices(tmp_path / "voices")):
        files = write_samples(tmp_path / speaker, [*enrolment, *tests[:trials]])
        done = run_program(*run, signed.folder, keys, signature, *files, env={**os.environ, **environment})
        said.append(done.stderr.splitlines())
        assert said[-1][-1].endswith("found a signature of other bytes")
        voice = reference.enroll(*enrolment)
        lines = done.stdout.splitlines()
        for line, samples in zip(lines, tests[:trials], strict=True):
            score, llr, accepted = line.split()
            expected = reference.verify(voice, samples)
            assert bool(int(accepted)) == expected.accepted
            assert float(score) == pytest.approx(expected.score, abs=2e-5)
            assert float(llr) == pytest.approx(expected.llr, abs=2e-5 * (1 + abs(reference.llr.slope)))
    return said
