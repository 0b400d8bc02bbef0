"""What is built, what is kept, and what a peer that cannot be built leaves behind."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_tests.bench import build
from device_tests.bench.build import Builder, Built, build_all
from device_tests.bench.contenders import MODES, our_contenders, peer_contenders
from device_tests.bench.subject import Subject
from exporters.peers.catalogue import Peer, peer_named
from pipeline.artifact.store import write_artifact
from pipeline.progress import Progress
from tests.factories import tiny_artifact


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    artifact = tiny_artifact(4)
    write_artifact(tmp_path / "4bit", artifact)
    crops = {f"u{index}": np.random.default_rng(index).normal(size=(60, 80)).astype(np.float32) for index in range(4)}
    subject = Subject(
        name="tiny",
        weights="random",
        audio="noise",
        reference=artifact,
        pressed={"4bit": tmp_path / "4bit"},
        calibration=crops,
        compared=crops,
    )
    return Builder(subject, tmp_path / "work", max_seconds=10.0, progress=Progress.silent())


def _converter(
    monkeypatch: pytest.MonkeyPatch, *, code: int, said: str, files: tuple[str, ...] = ()
) -> list[list[str]]:
    """Put a converter in place of all; returns the list of its calls."""
    calls: list[list[str]] = []

    def fake(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        folder = Path(command[command.index("--out") + 1])
        for name in (*files, "intermediate.tmp"):
            (folder / name).write_text("x")
        if files:
            (folder / "files.json").write_text("[" + ", ".join(f'"{name}"' for name in files) + "]")
        return subprocess.CompletedProcess(command, code, stdout=said)

    monkeypatch.setattr(build.subprocess, "run", fake)
    return calls


def test_a_peer_that_is_not_installed_says_what_to_install(builder: Builder) -> None:
    peer = Peer("made-up", "Made up", "ncnn", "fp32", ("no-such-package-anywhere", "numpy"))
    (contender,) = peer_contenders([peer])
    built = builder.build(contender, 60)
    assert built == Built(failure="not installed: no-such-package-anywhere (pip install --editable '.[peers]')")


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (2, "chatter\nValueError: no such op: Frobnicate\n", "could not be built: ValueError: no such op: Frobnicate"),
        (-11, "one\ntwo\n\nthree\nfour\n", "its converter ended with code -11: two | three | four"),
    ],
)
def test_a_peer_that_fails_is_a_reason_and_leaves_nothing(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, said: str, reason: str
) -> None:
    _converter(monkeypatch, code=code, said=said)
    (contender,) = peer_contenders([peer_named("onnxruntime-fp32")])
    assert builder.build(contender, 60) == Built(failure=reason)
    assert not list((tmp_path / "work").glob("files/*"))


def test_files_are_made_once_and_intermediate_ones_dropped(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = _converter(monkeypatch, code=0, said="", files=("m.param", "m.bin"))
    (free,) = peer_contenders([peer_named("onnxruntime-fp32")])
    # Its own package need not be installed for this.
    fixed = peer_contenders([Peer("ncnn-fp32", "ncnn", "ncnn", "fp32", (), fixed_length=True)])[0]
    built = build_all(builder, [free, fixed], [60, 98], Progress.silent())
    assert [path.name for path in built["onnxruntime-fp32", 60].files] == ["m.param", "m.bin"]
    assert built["onnxruntime-fp32", 60] == built["onnxruntime-fp32", 98]
    assert built["ncnn-fp32", 60] != built["ncnn-fp32", 98]
    assert len(calls) == 3
    assert sorted(path.name for path in built["ncnn-fp32", 98].files[0].parent.iterdir()) == [
        "files.json",
        "m.bin",
        "m.param",
        "stamp.json",
    ]
    assert build_all(builder, [free, fixed], [60, 98], Progress.silent()) == built
    assert len(calls) == 3
    # Damaged files are made again.
    built["onnxruntime-fp32", 60].files[0].write_text("damaged")
    builder.build(free, 60)
    assert len(calls) == 4


@pytest.mark.parametrize("changed", ["sources_sha256", "native_sha256"])
def test_files_made_by_other_code_are_made_again(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    (ours,) = our_contenders(["4bit"], MODES[:1], ("tflite",))
    calls: list[Path] = []
    monkeypatch.setattr(Builder, "_build_ours", lambda self, contender, folder: _written(folder, calls))
    builder.build(ours, 60)
    builder.build(ours, 60)
    assert len(calls) == 1
    monkeypatch.setattr(build, changed, lambda names: "another")
    builder.build(ours, 60)
    assert len(calls) == 2


def _written(folder: Path, calls: list[Path]) -> None:
    calls.append(folder)
    (folder / "files.json").write_text("[]")


def test_our_file_is_shared_by_low_memory(builder: Builder) -> None:
    whole, low = our_contenders(["4bit"], MODES[:2], ("tflite",))
    assert low.low_memory
    built = builder.build(whole, 60)
    assert built.files[0].suffix == ".tflite"
    assert builder.build(low, 98) == built
