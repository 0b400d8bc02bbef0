"""One engine process on a device: followed, and its words turned into records or one-line errors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from device_tests.drive.device import EngineCall, Session
from device_tests.records import EMBEDDINGS_FILE, ENGINE_FILE, EngineRecord, ModelFormat, read_embeddings
from device_tests.records import read_engine_record as read_record
from pipeline.errors import InputError, VoxPressError


def format_of(model: Path) -> ModelFormat:
    """The format of a model file by its suffix. Raises InputError for a missing file or another suffix."""
    if not model.is_file():
        raise InputError(model, expected="a .pte or .tflite file", found="no such file")
    if model.suffix == ".pte":
        return "pte"
    if model.suffix == ".tflite":
        return "tflite"
    raise InputError(model, expected="a .pte or .tflite file", found=f"suffix {model.suffix!r}")


def run_engine(
    session: Session, call: EngineCall, utterances: Sequence[str], on_step: Callable[[int], None]
) -> EngineRecord:
    """Run an engine to its end and return what it wrote; `on_step(done)` follows it.

    Raises VoxPressError with the engine's own line if it fails, or with the signal it died of and the model's hash; and
    if its record or embeddings are not about this model and these utterances.
    """
    said: list[str] = []

    def follow(line: str) -> None:
        words = line.split()
        if len(words) == 3 and words[0] == "progress" and words[1].isdecimal() and words[2].isdecimal():
            on_step(int(words[1]))
        elif words:
            said.append(" ".join(words))

    code = session.start(call, follow)
    if code != 0:
        raise VoxPressError(_last_words(call, code, said))
    return checked_record(call, utterances)


def checked_record(call: EngineCall, utterances: Sequence[str]) -> EngineRecord:
    """The record in `call.out`. Raises InputError if it or the embeddings beside it are not what was called for."""
    record = read_record(call.out)
    expected = 0 if call.skip_accuracy else len(utterances)
    if (record.model_sha256, record.utterances) != (call.sha256, expected):
        raise InputError(
            call.out / ENGINE_FILE,
            expected=f"{expected} utterances embedded by {call.model.name} (sha256 {call.sha256})",
            found=f"{record.utterances} by {record.model} (sha256 {record.model_sha256})",
        )
    if len(record.latency_ns) != call.protocol.runs:
        raise InputError(
            call.out / ENGINE_FILE,
            expected=f"{call.protocol.runs} timed runs of {call.model.name}",
            found=str(len(record.latency_ns)),
        )
    if not call.skip_accuracy:
        _check_complete(call.out / EMBEDDINGS_FILE, utterances)
    return record


def _check_complete(path: Path, utterances: Sequence[str]) -> None:
    embeddings = read_embeddings(path)
    strangers = sorted(set(utterances) ^ set(embeddings))
    if strangers:
        verb = "missing" if strangers[0] in utterances else "one too many"
        raise InputError(
            path, expected=f"embeddings of the {len(utterances)} utterances", found=f"{strangers[0]} {verb}"
        )


def _last_words(call: EngineCall, code: int, said: Sequence[str]) -> str:
    # An engine that ends with 2 has said all there is to say, in its last line, and names the file itself.
    if code == VoxPressError.exit_code and said:
        return said[-1]
    if code < 0 or code > 128:  # a shell's word for a signal
        number = -code if code < 0 else code - 128
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        how = f"its engine was ended by {name}"
    else:
        how = f"its engine ended with code {code}"
    after = f" after saying: {said[-1]}" if said else ""
    return f"{call.model} (sha256 {call.sha256}): expected embeddings, found that {how}{after}"
