"""Builds the Kotlin API and its JNI layer for the desktop JVM, and runs sessions on it.

By hand, on real speech (decisions of two speakers, three utterances each, against Python):

    .venv/bin/python -m tests.android.jvm_session BUNDLE --key release.pub.pem --audio ../shared/speech/dev
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.bundle.contents import read_manifest
from exporters.native import native_path
from pipeline.artifact.store import read_artifact
from tests.device_tests.core.signed import Reference, read_voices, trials_of

ROOT = Path(__file__).resolve().parents[2]
JARS = ROOT / "build" / "kotlin"
LIBRARY = ROOT / "android" / "voxpress" / "src" / "main"
SESSION = ROOT / "tests" / "android" / "jvm"
STRICT = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fvisibility=hidden")

Floats = npt.NDArray[np.float32]


def class_path() -> str:
    jars = sorted(JARS.rglob("*.jar"))
    assert jars, f"{JARS}: expected the Kotlin compiler, found none; run `make kotlin`"
    return os.pathsep.join(map(str, jars))


def java_home() -> Path:
    javac = shutil.which("javac")
    assert javac is not None
    return Path(javac).resolve().parents[1]


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def build(folder: Path) -> Path:
    """Classes and `libvoxpress_jni.so` in `folder`."""
    classes = folder / "classes"
    stub = SESSION / "org" / "tensorflow" / "lite" / "Delegate.java"
    _run("javac", "-d", classes, stub)
    kotlin = LIBRARY / "kotlin" / "org" / "voxpress"
    sources = [*sorted(kotlin.glob("*.kt")), kotlin / "android" / "VoxPressDelegate.kt", SESSION / "Session.kt"]
    options = ("-Werror", "-no-stdlib", "-no-reflect", "-jvm-target", "17", "-d", classes)
    compiler = ("java", "-Xmx1g", "-cp", class_path(), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler")
    _run(*compiler, *options, "-cp", f"{class_path()}{os.pathsep}{classes}", *sources)
    includes = [
        f"-I{java_home() / 'include'}",
        f"-I{java_home() / 'include' / 'linux'}",
        f"-I{ROOT / 'device_tests/core'}",
    ]
    native = native_path("voxpress").parent
    libraries = [f"-L{native}", "-lvoxpress", "-lvoxpress_tflite_delegate", f"-Wl,-rpath,{native}"]
    source, target = LIBRARY / "cpp" / "voxpress_jni.cc", folder / "libvoxpress_jni.so"
    _run("c++", *STRICT, "-shared", "-fPIC", *includes, source, *libraries, "-o", target)
    return folder


def session(built: Path, verb: str, *words: str | Path, system: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The facts that a session prints."""
    path = f"{class_path()}{os.pathsep}{built / 'classes'}"
    checks = ("-Xcheck:jni", f"-Djava.library.path={built}", *system)
    output = _run("java", "-Xmx1g", *checks, "-cp", path, "SessionKt", verb, *words)
    assert "WARNING" not in output, output
    return [json.loads(line) for line in output.splitlines()]


def write_samples(folder: Path, utterances: list[Floats]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:04d}.f32" for index in range(len(utterances))]
    for path, samples in zip(paths, utterances, strict=True):
        path.write_bytes(samples.astype("<f4").tobytes())
    return paths


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    words = parser.parse_args()
    manifest = read_manifest(words.bundle)
    reference = Reference(read_artifact(words.bundle / manifest.artifact(manifest.primary).folder), manifest)
    trials = differ = 0
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        built = build(Path(name))
        for speaker, enrolment, tests in trials_of(read_voices(words.audio)):
            files = write_samples(Path(name) / speaker, [*enrolment, *tests])
            model, *found = session(built, "trials", words.bundle, words.key, *files)
            voice = reference.enroll(*enrolment)
            expected = [reference.verify(voice, samples) for samples in tests]
            accepted = sum(decision["accepted"] for decision in found)
            print(f"{speaker}: {model['model']} on {model['engine']}, {len(found)} trials, {accepted} accepted")
            for decision, known in zip(found, expected, strict=True):
                trials += 1
                differ += decision["accepted"] != known.accepted
                worst = max(worst, abs(decision["score"] - known.score))
    print(f"{trials} trials, {differ} decisions differ from Python's, scores by at most {worst:.1e}")


if __name__ == "__main__":
    main()
