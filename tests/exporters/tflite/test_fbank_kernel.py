"""The front end as a delegated node: batches, hostile options, broken wiring."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate

from exporters.native import native_path
from exporters.tflite.emit import emit_tflite, fbank_options
from exporters.tflite.run import TfliteRunner
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from tests.exporters.tflite.models import custom_nodes, pack, set_option, tensor, unpack
from tests.factories import speech_like, tiny_artifact


def _model() -> bytes:
    return emit_tflite(tiny_artifact(4), lowering="voxpress", model_input="waveform")


def _altered(change: Callable[[Any], None]) -> bytes:
    model = unpack(_model())
    change(model)
    return pack(model)


def _at(offset: int, fmt: str, value: float) -> Callable[[Any], None]:
    return lambda model: set_option(model, offset, struct.pack(f"<{fmt}", value))


def _options(raw: bytes) -> Callable[[Any], None]:
    return lambda model: setattr(custom_nodes(model)[0], "customOptions", np.frombuffer(raw, np.uint8))


def _wiring(field: str, value: list[int]) -> Callable[[Any], None]:
    return lambda model: setattr(custom_nodes(model)[0], field, value)


def _type(which: str, value: int) -> Callable[[Any], None]:
    return lambda model: setattr(tensor(model, getattr(custom_nodes(model)[0], which)[0]), "type", value)


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "no options": (_options(b""), "wrong size"),
    "long options": (_options(b"VXFB" + bytes(100)), "wrong size"),
    "foreign magic": (_at(0, "I", 0), "wrong magic"),
    "future version": (_at(4, "H", 2), "unknown op version"),
    "unknown window": (_at(6, "B", 3), "out of range"),
    "unknown flag": (_at(7, "B", 63), "reserved"),
    "no rate": (_at(8, "i", 0), "out of range"),
    "huge window": (_at(12, "i", 2**31 - 1), "out of range"),
    "negative window": (_at(12, "i", -400), "out of range"),
    "no shift": (_at(16, "i", 0), "out of range"),
    "huge mel": (_at(20, "i", 2**31 - 1), "out of range"),
    "infinite scale": (_at(24, "f", float("inf")), "out of range"),
    "NaN preemphasis": (_at(28, "f", float("nan")), "out of range"),
    "negative edge": (_at(32, "f", -1.0), "out of range"),
    "edge beyond half the rate": (_at(36, "f", 9000.0), "out of range"),
    "reserved": (_at(40, "i", 1), "reserved"),
    "two inputs": (_wiring("inputs", [1, 1]), "wrong number of inputs"),
    "no input": (_wiring("inputs", [-1]), "missing"),
    "int32 output": (_type("outputs", schema.TensorType.INT32), "not float32"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_nodes_are_refused_with_a_reason(case: str) -> None:
    change, reason = HOSTILE[case]
    with pytest.raises(InputError, match=reason):
        TfliteRunner(_altered(change))


def test_options_are_44_bytes_and_say_everything() -> None:
    raw = fbank_options(FrontEndSpec(window="povey", high_hz=-400, use_power=False))
    assert len(raw) == 44
    magic, version, window, flags, *rest = struct.unpack("<4sHBB4i4fi", raw)
    assert (magic, version, window, flags) == (b"VXFB", 1, 1, 1 + 2 + 8 + 16)
    assert rest == [16000, 400, 160, 80, 32768.0, pytest.approx(0.97), 20.0, 7600.0, 0]


def test_too_few_samples_are_refused_and_the_next_utterance_runs() -> None:
    runner = TfliteRunner(_model())
    with pytest.raises(InputError, match="out of range"):
        runner.embed(speech_like(0.02))
    assert np.isfinite(runner.embed(speech_like(0.5))).all()


def test_a_batch_is_its_utterances_one_by_one() -> None:
    samples = np.stack([speech_like(0.7, seed=seed) for seed in range(4)])
    delegate = load_delegate(str(native_path("tflite_delegate")))
    interpreter = Interpreter(model_content=_model(), experimental_delegates=[delegate])
    source = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(source, samples.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, samples)
    interpreter.invoke()
    together = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert together.shape == (4, 16)
    runner = TfliteRunner(_model())
    for found, row in zip(together, samples, strict=True):
        np.testing.assert_array_equal(found, runner.embed(row))
