"""Programs whose calls of our ops say what no exporter says: refused with a reason, never run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from executorch.exir.schema import Bool, EValue, Int, Null

from exporters.pte.emit import emit_pte
from exporters.pte.run import PteRunner
from exporters.runtimes import RUNTIMES, RuntimeRefusedError, run_model
from pipeline.errors import InputError
from tests.exporters.pte.models import tiny_pte, utterance
from tests.factories import speech_like, tiny_artifact

pytestmark = pytest.mark.slow  # torch.export takes its time

# Places of the arguments of voxpress::conv2d.out and voxpress::fbank.out.
X, CODES, PALETTE, SCALE, BIAS, RESIDUAL, KERNEL, STRIDE, PADDING, GROUPS, BITS, RELU, VERSION = range(13)
RATE, WINDOW_SAMPLES, SHIFT, MEL, SAMPLE_SCALE, PREEMPHASIS, LOW, HIGH, WINDOW, FLAGS, FBANK_VERSION = range(1, 12)


@pytest.fixture(scope="module")
def features_model() -> bytes:
    return tiny_pte(4)


@pytest.fixture(scope="module")
def waveform_model() -> bytes:
    return emit_pte(tiny_artifact(4), lowering="voxpress", max_seconds=4.0, model_input="waveform")


def _altered(data: bytes, op: str, place: int, value: Any) -> bytes:
    """The program with one argument of the first call of an op replaced; a number may replace a list's first one."""
    file = deserialize_pte_binary(data)
    plan = next(plan for plan in file.program.execution_plan if plan.name == "forward")
    index = next(i for i, operator in enumerate(plan.operators) if operator.name == op)
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    call = next(call for call in calls if type(call).__name__ == "KernelCall" and call.op_index == index)
    if callable(value):
        value = value(plan.values, call)
    plan.values.append(EValue(value))
    call.args[place] = len(plan.values) - 1
    return bytes(serialize_pte_binary(file))


def _list(place: int, first: int) -> Callable[[Any, Any], Any]:
    """A list argument with another first number."""

    def change(values: list[Any], call: Any) -> Any:
        old = values[call.args[place]].val
        values.append(EValue(Int(first)))
        return type(old)(items=[len(values) - 1, *old.items[1:]])

    return change


def _tensor(place: int) -> Callable[[Any, Any], Any]:
    """The tensor of another argument."""
    return lambda values, call: values[call.args[place]].val


CONV2D: dict[str, tuple[int, Any, str]] = {
    "0 bits": (BITS, Int(0), "bits is not 1..8 or 32"),
    "9 bits": (BITS, Int(9), "bits is not 1..8 or 32"),
    "huge bits": (BITS, Int((1 << 32) + 4), "bits is not 1..8 or 32"),
    "fewer bits than codes": (BITS, Int(3), "wrong number of bytes"),
    "more bits than codes": (BITS, Int(8), "wrong number of bytes"),
    "future version": (VERSION, Int(2), "unknown op version"),
    "0 groups": (GROUPS, Int(0), "out of range"),
    "negative groups": (GROUPS, Int(-1), "out of range"),
    "huge kernel": (KERNEL, _list(KERNEL, (1 << 62) + 1), "out of range"),
    "zero stride": (STRIDE, _list(STRIDE, 0), "out of range"),
    "negative padding": (PADDING, _list(PADDING, -1), "out of range"),
    "huge padding": (PADDING, _list(PADDING, 1 << 62), "out of range"),
    "codes that are the scale": (CODES, _tensor(SCALE), "missing or of the wrong type"),
    "palette that is the codes": (PALETTE, _tensor(CODES), "missing or of the wrong type"),
    "palette that is the scale": (PALETTE, _tensor(SCALE), "wrong number of bytes"),
    "no palette": (PALETTE, Null(), "a buffer is missing"),
    "no codes": (CODES, Null(), "missing or of the wrong type"),
    "bias of another length": (BIAS, _tensor(PALETTE), "wrong number of bytes"),
    "residual that is x": (RESIDUAL, _tensor(X), "residual's shape"),
    "bits that are a flag": (BITS, Bool(True), "missing or of the wrong type"),
}
FBANK: dict[str, tuple[int, Any, str]] = {
    "huge rate": (RATE, Int(1 << 40), "out of range"),
    "window of 2^32 + 400": (WINDOW_SAMPLES, Int((1 << 32) + 400), "out of range"),
    "no shift": (SHIFT, Int(0), "out of range"),
    "257 mel bins": (MEL, Int(257), "out of range"),
    "unknown window": (WINDOW, Int(3), "out of range"),
    "unknown flag": (FLAGS, Int(32), "unknown op version"),
    "future version": (FBANK_VERSION, Int(2), "unknown op version"),
    "scale that is an integer": (SAMPLE_SCALE, Int(1), "missing or of the wrong type"),
}


def test_a_program_that_went_through_unaltered_runs(features_model: bytes) -> None:
    through = bytes(serialize_pte_binary(deserialize_pte_binary(features_model)))
    frames = utterance(50)
    np.testing.assert_array_equal(PteRunner(through).embed(frames), PteRunner(features_model).embed(frames))


@pytest.mark.parametrize("case", CONV2D)
def test_hostile_layers_are_refused(case: str, features_model: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    place, value, reason = CONV2D[case]
    data = _altered(features_model, "voxpress::conv2d", place, value)
    with pytest.raises(InputError, match="expected a model that runs"):
        PteRunner(data).embed(utterance(50))
    said = capfd.readouterr().err
    assert "voxpress::conv2d.out" in said
    assert reason in said


def test_known_issue_an_op_index_beyond_the_table_ends_executorch(features_model: bytes, tmp_path: Path) -> None:
    """Upstream, ExecuTorch 1.5.1, whatever its verification: with it mended, drop this and the words in the README.

    Bundles carry a sha256 of every file; doctor and the compatibility table run files in processes of their own.
    """
    file = deserialize_pte_binary(features_model)
    plan = next(plan for plan in file.program.execution_plan if plan.name == "forward")
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    next(call for call in calls if type(call).__name__ == "KernelCall").op_index = 1 << 20
    (tmp_path / "m.pte").write_bytes(bytes(serialize_pte_binary(file)))
    with pytest.raises(RuntimeRefusedError, match="the runtime's process was ended by SIG"):
        run_model(RUNTIMES["executorch"], tmp_path / "m.pte", {"u": utterance(50)[None]})


@pytest.mark.parametrize("case", FBANK)
def test_hostile_front_ends_are_refused(case: str, waveform_model: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    place, value, reason = FBANK[case]
    data = _altered(waveform_model, "voxpress::fbank", place, value)
    with pytest.raises(InputError, match="expected a model that runs"):
        PteRunner(data).embed(speech_like(1.0))
    said = capfd.readouterr().err
    assert "voxpress::fbank.out" in said
    assert reason in said
