"""A benchmark's course with contenders that are no models: interruption, crashes, missing peers, what is recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_tests.bench import run
from device_tests.bench.build import Built
from device_tests.bench.contenders import MODES, Contender, our_contenders, peer_contenders
from device_tests.bench.records import BenchProtocol, read_bench
from device_tests.bench.run import BenchRequest, check_ours, cosines, run_bench
from device_tests.bench.subject import Subject
from exporters.peers.catalogue import peer_named
from pipeline.errors import InputError, VerificationError, VoxPressError
from pipeline.progress import Progress
from tests.factories import tiny_artifact

FAKE = [sys.executable, str(Path(__file__).parent / "fake_worker.py")]
PROTOCOL = BenchProtocol(frames=60, threads=(1,), runs=2, rounds=3, starts=2)
OURS, FP32, INT8 = "voxpress-4bit-exact.tflite", "onnxruntime-fp32", "onnxruntime-int8"


class _Stage:
    """Stands in for subject, files and processes of a benchmark; `words` are each contender's of the fake worker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        contenders = our_contenders(["4bit"], MODES[:1], ("tflite",))
        contenders += peer_contenders([peer_named(FP32), peer_named(INT8), peer_named("ncnn-fp32")])
        self.words: dict[str, list[str]] = {OURS: ["1000"], FP32: ["3000"], INT8: ["2000"]}
        self.started: list[str] = []
        built: dict[tuple[str, int], Built] = {}
        for contender in contenders:
            path = tmp_path / contender.name
            path.write_bytes(contender.name.encode())
            built[contender.name, 60] = built[contender.name, 98] = Built(files=(path,))
        built["ncnn-fp32", 60] = built["ncnn-fp32", 98] = Built(failure="not installed: ncnn")
        crop = np.ones((60, 80), np.float32)
        subject = Subject(
            name="tiny",
            weights="random, seed 0",
            audio="synthetic voices",
            reference=tiny_artifact(32),
            pressed={},
            calibration={"c": crop},
            compared={"a": crop},
        )
        self.protocol = PROTOCOL
        monkeypatch.setattr(Subject, "reference_embeddings", lambda self, frames: {"a": np.float32([2.0, 4.0])})
        monkeypatch.setattr(
            run, "_prepare", lambda *_: run._Bench(subject, contenders, built, self.protocol, max_seconds=10.0)
        )
        monkeypatch.setattr(run, "worker_command", self._command)

    def _command(self, contender: Contender, model: Path, features: Path, *, threads: int, frames: int) -> list[str]:
        assert model.name == contender.name
        assert features.is_file()
        self.started.append(contender.name)
        return [*FAKE, *self.words[contender.name]]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Stage:
    return _Stage(monkeypatch, tmp_path)


def _run(out: Path) -> Any:
    request = BenchRequest("tiny", [], [], [], protocol=PROTOCOL)
    return run_bench(request, out, Progress.silent())


def test_everything_is_recorded(stage: _Stage, tmp_path: Path) -> None:
    record = _run(tmp_path / "out")
    assert read_bench(tmp_path / "out") == record
    ours, fp32, int8, ncnn = record.contenders
    assert (ours.name, fp32.name, int8.name) == (OURS, FP32, INT8)
    # Two starts of three rounds of two runs; the fake worker adds the number of the turn.
    assert ours.at(60, 1).rounds == ((1001, 1001), (1002, 1002), (1003, 1003)) * 2
    assert fp32.at(60, 1).samples_ns[0] == 3001
    assert [len(ours.at(60, 1).starts), len(ours.at(60, 1).memory)] == [2, 2]
    assert ours.cosines == {"a": pytest.approx(1.0)}
    assert ours.file_bytes == len(OURS)
    assert ncnn.failure == "not installed: ncnn"
    assert (ncnn.measured, ncnn.file_bytes) == ((), None)
    assert not (tmp_path / "out" / ".parts").exists()
    check_ours(record)


def test_a_peer_that_crashes_is_a_row_with_the_reason(stage: _Stage, tmp_path: Path) -> None:
    stage.words[INT8] += ["--die-at", "2"]
    stage.words[FP32] = ["1", "--refuse", "onnx: no such op"]
    record = _run(tmp_path / "out")
    ours, fp32, int8, _ = record.contenders
    assert ours.at(60, 1).failure is None
    assert fp32.at(60, 1).failure == "onnx: no such op"
    assert fp32.at(60, 1).rounds == ()
    assert int8.at(60, 1).failure.startswith("its process ended by SIGSEGV")
    assert int8.at(60, 1).rounds == ((2001, 2001), (2001, 2001))
    check_ours(record)


def test_our_own_file_that_crashes_is_an_error_once_all_is_written(stage: _Stage, tmp_path: Path) -> None:
    stage.words[OURS] += ["--die-at", "1"]
    record = _run(tmp_path / "out")
    assert read_bench(tmp_path / "out") == record
    with pytest.raises(VerificationError, match=r"VoxPress \.tflite 4bit exact: its process ended by SIGSEGV"):
        check_ours(record)


def test_an_interrupted_run_goes_on_with_the_rounds_it_had(
    stage: _Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play, played = run.play_round, []

    def interrupted(*arguments: Any, **named: Any) -> None:
        if len(played) == 4:
            raise KeyboardInterrupt
        played.append(named["round_index"])
        play(*arguments, **named)

    monkeypatch.setattr(run, "play_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "out")
    assert played == [0, 1, 2, 3]
    assert not (tmp_path / "out" / "bench.json").exists()

    rounds: list[int] = []

    def counted(*arguments: Any, **named: Any) -> None:
        rounds.append(named["round_index"])
        play(*arguments, **named)

    monkeypatch.setattr(run, "play_round", counted)
    stage.started.clear()
    record = _run(tmp_path / "out")
    assert rounds == [4, 5]
    assert sorted(stage.started) == sorted([OURS, FP32, INT8])  # those of the second start alone
    assert "4 complete rounds were taken over from an interrupted run" in record.notes
    ours = record.contenders[0].at(60, 1)
    assert ours.rounds == ((1001,) * 2, (1002,) * 2, (1003,) * 2, (1001,) * 2, (1001,) * 2, (1002,) * 2)
    assert len(ours.starts) == 3


def test_rounds_of_other_files_are_not_taken_over(
    stage: _Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    play = run.play_round

    def interrupted(*arguments: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        play(*arguments, **named)

    monkeypatch.setattr(run, "play_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "out")
    (tmp_path / OURS).write_bytes(b"another model")
    record = _run(tmp_path / "out")
    assert not [note for note in record.notes if "taken over" in note]


def test_growth_is_measured_in_processes_of_its_own(stage: _Stage, tmp_path: Path) -> None:
    stage.protocol = replace_protocol(growth_frames=(98, 60), growth_rounds=2)
    record = _run(tmp_path / "out")
    ours = record.contenders[0]
    assert [(one.frames, one.threads) for one in ours.measured] == [(60, 1), (98, 1)]
    assert ours.at(98, 1).rounds == ((1001,), (1002,))
    assert stage.started.count(OURS) == 3


def test_more_threads_than_cores_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    request = BenchRequest("resnet34", [], [], [], protocol=replace_protocol(threads=(4096,)))
    with pytest.raises(InputError, match="--threads: expected at most"):
        run_bench(request, tmp_path / "out", Progress.silent())
    assert not (tmp_path / "out").exists()


def test_cosines_and_what_they_refuse() -> None:
    wanted = {"a": np.float32([3, 4]), "b": np.float32([1, 0])}
    assert cosines({"a": [6, 8], "b": [0, 2]}, wanted) == {"a": pytest.approx(1.0), "b": pytest.approx(0.0)}
    assert cosines({"a": [0, 0], "b": [-1, 0]}, wanted) == {"a": 0.0, "b": pytest.approx(-1.0)}
    with pytest.raises(VoxPressError, match="expected embeddings of 2 utterances, found 1"):
        cosines({"a": [6, 8]}, wanted)
    with pytest.raises(VoxPressError, match="expected embeddings of 2 values, found 1"):
        cosines({"a": [6, 8], "b": [1]}, wanted)


def replace_protocol(**changes: Any) -> BenchProtocol:
    return PROTOCOL.model_copy(update=changes)
