"""A contender's process, seen from outside: started on its own cores, asked line by line, ended whatever happens."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pydantic

import device_tests
from device_tests.bench.records import Memory, Start
from pipeline.errors import InputError, VoxPressError
from pipeline.files import first_problem

ANSWER_WITHIN_SECONDS = 300.0

Answer = TypeVar("Answer", bound=pydantic.BaseModel)

# Pools that libraries make of their own accord, beside the threads that a runtime is told to have.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VOXPRESS_THREADS")


class WorkerError(VoxPressError):
    """A contender's process could not do what it was asked, or is no more; the message says why."""


class _Latency(pydantic.BaseModel):
    latency_ns: tuple[pydantic.PositiveInt, ...]


class _Embeddings(pydantic.BaseModel):
    embeddings: dict[str, list[pydantic.FiniteFloat]]


def engine_environment() -> dict[str, str]:
    """Variables of a process that runs modules of this source tree: where that is, and no chatter."""
    # The tree need not be installed nor be the working directory.
    root = str(Path(device_tests.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "2"}


def cores_for(threads: int) -> list[int]:
    """The last `threads` of the cores that this process may use.

    Raises InputError if there are not so many: threads that share a core say nothing about either.
    """
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise InputError(
            "--threads", expected=f"at most {len(cores)}, the cores this process may use", found=f"{threads}"
        )
    return cores[-threads:]


class Worker:
    """A process that has loaded a model. Every method raises WorkerError if it fails, hangs or has died."""

    def __init__(self, command: Sequence[str], *, threads: int) -> None:
        """Start `command` on as many cores as threads and wait until its model is loaded and has run once."""
        variables = {**engine_environment(), **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._pending = b""
        try:
            with on_cores(cores_for(threads)):
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
                    env=variables,
                    bufsize=0,
                )
        except OSError as error:
            self._said.close()
            raise WorkerError(f"{command[0]}: could not be started: {error.strerror or error}") from error
        try:
            self.start = self._read(Start)
        except BaseException:
            self.kill()
            raise

    def run(self, warmup: int, runs: int) -> tuple[int, ...]:
        """Nanoseconds of `runs` inferences, after `warmup` that are not kept."""
        samples = self._ask(f"run {warmup} {runs}", _Latency).latency_ns
        if len(samples) != runs:
            raise WorkerError(f"{runs} timed runs were asked for, {len(samples)} came")
        return samples

    def embed(self) -> dict[str, list[float]]:
        """Embeddings [E] of all utterances."""
        return self._ask("embed", _Embeddings).embeddings

    def memory(self) -> Memory:
        """Resident and peak memory now."""
        return self._ask("memory", Memory)

    def close(self) -> None:
        """Let the process end by itself, and end it if it does not."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.kill()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._said.close()

    def _ask(self, request: str, model: type[Answer]) -> Answer:
        if self._said.closed or self._process.stdin is None:
            raise WorkerError("its process has been ended")
        try:
            self._process.stdin.write(request.encode() + b"\n")
        except OSError:
            self._process.wait()
            raise WorkerError(self._last_words()) from None
        return self._read(model)

    def _read(self, model: type[Answer]) -> Answer:
        line = self._read_line()
        try:
            return model.model_validate_json(line)
        except pydantic.ValidationError as error:
            raise WorkerError(f"it answered {line[:80]!r}: {first_problem(error)}") from None

    def _read_line(self) -> str:
        stream = self._process.stdout
        if stream is None:
            raise WorkerError("its process has no output")
        deadline = time.monotonic() + ANSWER_WITHIN_SECONDS
        while b"\n" not in self._pending:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerError(f"it gave no answer within {ANSWER_WITHIN_SECONDS:g} s")
            data = stream.read(1 << 16)
            if not data:
                self._process.wait()
                raise WorkerError(self._last_words())
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [" ".join(line.split()) for line in self._said.read().decode(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), None)
        code = self._process.returncode
        # A worker that ends with 2 has said all there is to say, in its last line.
        if code == VoxPressError.exit_code and last is not None:
            return last
        try:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        except ValueError:
            how = f"by signal {-code}"
        return f"its process ended {how}" + (f" after saying: {last}" if last is not None else "")


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What this thread starts meanwhile is confined to `cores` from its first instruction on."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
