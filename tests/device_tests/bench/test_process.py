"""A contender's process: what it answers, and every way in which it can fail."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_tests.bench import process
from device_tests.bench.process import Worker, WorkerError, cores_for
from pipeline.errors import InputError

FAKE = [sys.executable, str(Path(__file__).parent / "fake_worker.py")]


@pytest.fixture
def started() -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.kill()


def _start(started: list[Worker], *words: str, threads: int = 1) -> Worker:
    worker = Worker([*FAKE, *words], threads=threads)
    started.append(worker)
    return worker


def test_answers_and_ends(started: list[Worker]) -> None:
    worker = _start(started, "1000")
    assert (worker.start.engine, worker.start.load_ns, worker.start.resident_after_load_bytes) == ("fake", 5, 150)
    assert worker.run(1, 3) == (1001, 1001, 1001)
    assert worker.run(0, 1) == (1002,)
    assert worker.embed() == {"a": [1.0, 2.0]}
    assert worker.memory().peak_bytes == 250
    begin = time.monotonic()
    worker.close()
    assert time.monotonic() - begin < 5
    with pytest.raises(WorkerError, match="has been ended"):
        worker.run(0, 1)


def test_a_turn_ends_when_all_threads_sleep(started: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    worker = _start(started, "1000", "--spin-seconds", "0.3")
    begin = time.monotonic()
    worker.run(0, 1)
    assert time.monotonic() - begin > 0.25
    monkeypatch.setattr(process, "IDLE_WITHIN_SECONDS", 0.05)
    with pytest.raises(WorkerError, match=r"its threads still ran 0\.05 s after its answer"):
        worker.run(0, 1)


def test_has_as_many_cores_and_openmp_threads_as_it_is_told(started: list[Worker]) -> None:
    available = os.sched_getaffinity(0)
    for threads in (1, 2) if len(available) > 1 else (1,):
        worker = _start(started, "1000", threads=threads)
        assert (worker.start.threads, worker.start.runtime_version) == (threads, str(threads))
    assert os.sched_getaffinity(0) == available
    with pytest.raises(InputError, match=r"--threads: expected at most \d+"):
        cores_for(len(available) + 1)


def test_a_refusal_is_its_last_line() -> None:
    with pytest.raises(WorkerError, match=r"^model\.x: expected a model, found none$"):
        Worker([*FAKE, "1", "--refuse", "model.x: expected a model, found none"], threads=1)


def test_a_crash_names_the_signal_and_the_last_words(started: list[Worker]) -> None:
    worker = _start(started, "1000", "--die-at", "2")
    worker.run(0, 1)
    with pytest.raises(WorkerError, match="ended by SIGSEGV after saying: the last thing it says"):
        worker.run(0, 1)
    with pytest.raises(WorkerError, match="ended by SIGSEGV"):
        worker.memory()


def test_what_is_no_answer_is_said(started: list[Worker]) -> None:
    worker = _start(started, "1000", "--babble-at", "1")
    with pytest.raises(WorkerError, match="it answered 'not json'"):
        worker.run(0, 1)


def test_silence_has_an_end(started: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    worker = _start(started, "1000", "--hang-at", "1")
    monkeypatch.setattr(process, "ANSWER_WITHIN_SECONDS", 0.2)
    with pytest.raises(WorkerError, match=r"no answer within 0\.2 s"):
        worker.run(0, 1)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(WorkerError, match="could not be started: No such file"):
        Worker(["/nowhere/engine"], threads=1)
