"""Builds the Kotlin API and its JNI layer for the desktop JVM, and runs sessions on it.

By hand, on real speech (decisions of two speakers, three utterances each, against Python):

    .venv/bin/python -m tests.android.jvm_session BUNDLE --key release.pub.pem --audio ../shared/speech/dev
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
from tests.device_tests.interpreter import interpreter_library

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


def _run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def example(page: Path = ROOT / "android" / "README.md") -> str:
    """The program that an app developer reads first: the page's first block of Kotlin."""
    found = re.search(r"^```kotlin\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, page
    return found[1]


def build(folder: Path) -> Path:
    """Classes of the library, of the page's example and of the session, and the native libraries, in `folder`.

    What the library asks of Android, LiteRT and Tink is stood in for by `jvm/android`, `jvm/org` and `jvm/com`; the
    native library of LiteRT is the interpreter under the name that it has in LiteRT 1's AAR.
    """
    classes = folder / "classes"
    _run("javac", "-d", classes, *sorted(SESSION.rglob("*.java")))
    (folder / "Example.kt").write_text(example(), encoding="utf-8")
    sources = [*sorted((LIBRARY / "kotlin").rglob("*.kt")), *sorted(SESSION.rglob("*.kt")), folder / "Example.kt"]
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
    (folder / "libtensorflowlite_jni.so").symlink_to(interpreter_library())
    return folder


def session(built: Path, verb: str, *words: str | Path, system: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The facts that a session prints."""
    path = f"{class_path()}{os.pathsep}{built / 'classes'}"
    checks = ("-Xcheck:jni", f"-Djava.library.path={built}", *system)
    # Android finds an app's libraries by their names; here the system's loader is told where.
    places = os.pathsep.join((str(built), str(native_path("voxpress").parent)))
    output = _run(
        "java", "-Xmx1g", *checks, "-cp", path, "SessionKt", verb, *words, environment={"LD_LIBRARY_PATH": places}
    )
    assert "WARNING" not in output, output
    # The interpreter speaks of itself on the same stream.
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


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
    parser.add_argument("--format", choices=("pte", "tflite"), default="pte")
    words = parser.parse_args()
    manifest = read_manifest(words.bundle)
    reference = Reference(read_artifact(words.bundle / manifest.artifact(manifest.primary).folder), manifest)
    trials = differ = 0
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        built = build(Path(name))
        for speaker, enrolment, tests in trials_of(read_voices(words.audio)):
            files = write_samples(Path(name) / speaker, [*enrolment, *tests])
            model, *found = session(
                built, "trials", words.bundle, words.key, *files, system=(f"-Dvoxpress.format={words.format}",)
            )
            voice = reference.enroll(*enrolment)
            expected = [reference.verify(voice, samples) for samples in tests]
            accepted = sum(decision["accepted"] for decision in found)
            engine = f"{model['engine']} {model['runtime']}"
            print(f"{speaker}: {model['model']} on {engine}, {len(found)} trials, {accepted} accepted")
            for decision, known in zip(found, expected, strict=True):
                trials += 1
                differ += decision["accepted"] != known.accepted
                worst = max(worst, abs(decision["score"] - known.score))
    print(f"{trials} trials, {differ} decisions differ from Python's, scores by at most {worst:.1e}")


if __name__ == "__main__":
    main()
