"""One engine process: started, followed, and its words turned into records or one-line errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import device_tests
from device_tests.records import (
    EMBEDDINGS_FILE,
    EngineRecord,
    ModelFormat,
    Protocol,
    read_embeddings,
    read_engine_record,
)
from exporters.native import native_path
from pipeline.errors import InputError, VoxPressError

EngineCommands = Mapping[ModelFormat, Sequence[str]]


@dataclass(frozen=True)
class EngineCall:
    """One start of an engine: which program, on which model and features, and how often."""

    command: Sequence[str]
    model: Path
    features: Path
    out: Path
    protocol: Protocol
    skip_accuracy: bool

    def arguments(self) -> list[str]:
        """The command line."""
        return [
            *self.command,
            *("--model", str(self.model)),
            *("--features", str(self.features)),
            *("--out", str(self.out)),
            *("--warmup", str(self.protocol.warmup)),
            *("--runs", str(self.protocol.runs)),
            *("--speed-frames", str(self.protocol.speed_frames)),
            *("--threads", str(self.protocol.threads)),
            *(("--low-memory",) if self.protocol.low_memory else ()),
            *(("--skip-accuracy",) if self.skip_accuracy else ()),
        ]


def engine_command(model_format: ModelFormat) -> list[str]:
    """The program that runs files of a format on this host. Raises MissingToolError if it is not built."""
    if model_format == "pte":
        return [str(native_path("pte_runner"))]
    return [sys.executable, "-m", "device_tests.harness.litert_engine"]


def format_of(model: Path) -> ModelFormat:
    """The format of a model file by its suffix. Raises InputError for a missing file or another suffix."""
    if not model.is_file():
        raise InputError(model, expected="a .pte or .tflite file", found="no such file")
    if model.suffix == ".pte":
        return "pte"
    if model.suffix == ".tflite":
        return "tflite"
    raise InputError(model, expected="a .pte or .tflite file", found=f"suffix {model.suffix!r}")


def run_engine(call: EngineCall, utterances: Sequence[str], on_step: Callable[[int], None]) -> EngineRecord:
    """Run an engine to its end and return what it wrote; `on_step(done)` follows it.

    Raises VoxPressError with the engine's own line if it fails, or with the signal it died of; and if its record or
    embeddings are not about this model and these utterances. The process never outlives this call.
    """
    said: list[str] = []
    with _start(call) as process:
        try:
            for line in process.stderr or ():
                words = line.split()
                if len(words) == 3 and words[0] == "progress" and words[1].isdecimal() and words[2].isdecimal():
                    on_step(int(words[1]))
                elif words:
                    said.append(" ".join(words))
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code != 0:
        raise VoxPressError(_last_words(call.model, code, said))
    record = read_engine_record(call.out)
    expected = 0 if call.skip_accuracy else len(utterances)
    if record.model != call.model.name or record.utterances != expected:
        raise InputError(
            call.out / "engine.json",
            expected=f"{expected} utterances embedded by {call.model.name}",
            found=f"{record.utterances} by {record.model}",
        )
    if len(record.latency_ns) != call.protocol.runs:
        raise InputError(
            call.out / "engine.json",
            expected=f"{call.protocol.runs} timed runs of {call.model.name}",
            found=str(len(record.latency_ns)),
        )
    if not call.skip_accuracy:
        _check_complete(call.out / EMBEDDINGS_FILE, utterances)
    return record


def _start(call: EngineCall) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            call.arguments(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
        )
    except OSError as error:
        raise VoxPressError(f"{call.command[0]}: could not be started: {error.strerror or error}") from error


def _check_complete(path: Path, utterances: Sequence[str]) -> None:
    embeddings = read_embeddings(path)
    strangers = sorted(set(utterances) ^ set(embeddings))
    if strangers:
        verb = "missing" if strangers[0] in utterances else "one too many"
        raise InputError(
            path, expected=f"embeddings of the {len(utterances)} utterances", found=f"{strangers[0]} {verb}"
        )


def _last_words(model: Path, code: int, said: Sequence[str]) -> str:
    # An engine that ends with 2 has said all there is to say, in its last line, and names the file itself.
    if code == VoxPressError.exit_code and said:
        return said[-1]
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        how = f"its engine was ended by {name}"
    else:
        how = f"its engine ended with code {code}"
    return f"{model}: expected embeddings, found that {how}" + (f" after saying: {said[-1]}" if said else "")


def _environment() -> dict[str, str]:
    # The engine is a module of this source tree, which need not be installed nor be the working directory.
    root = str(Path(device_tests.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "2"}
