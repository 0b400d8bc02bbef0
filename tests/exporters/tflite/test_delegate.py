"""The delegate library in the stock runtime: lifetimes, threads and hostile files."""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Delegate, Interpreter, load_delegate

from exporters.native import native_path
from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.errors import InputError, MissingToolError
from tests.exporters.tflite.models import altered, custom_nodes, overwrite, set_option, tensor
from tests.factories import tiny_artifact
from tests.kernels.capi import float_isa, isas

POOL = 6  # place of the stats_pool among the custom nodes


def _features(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).normal(size=(frames, 80)).astype(np.float32)


def _expected(bits: int, frames: int, channels: tuple[int, int] = (5, 9)) -> np.ndarray:
    return decode(tiny_artifact(bits, channels=channels))(torch.from_numpy(_features(frames))[None])[0].numpy()


def _model(bits: int = 4, channels: tuple[int, int] = (5, 9)) -> bytes:
    return emit_tflite(tiny_artifact(bits, channels=channels), lowering="voxpress")


def _delegate() -> Delegate:
    return load_delegate(str(native_path("tflite_delegate")))


def _run(interpreter: Interpreter, frames: int) -> np.ndarray:
    source = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(source, (1, frames, 80))
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, _features(frames)[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def _assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_one_delegate_serves_several_interpreters() -> None:
    delegate = _delegate()
    interpreters = {
        bits: Interpreter(model_content=_model(bits), experimental_delegates=[delegate]) for bits in (1, 4, 8)
    }
    for frames in (50, 31):
        for bits, interpreter in interpreters.items():
            _assert_close(_run(interpreter, frames), _expected(bits, frames))


@pytest.mark.parametrize("delegate_first", [False, True])
def test_interpreter_and_delegate_may_be_deleted_in_any_order(delegate_first: bool) -> None:
    for _ in range(5):
        delegate = _delegate()
        interpreter = Interpreter(model_content=_model(), experimental_delegates=[delegate])
        _assert_close(_run(interpreter, 40), _expected(4, 40))
        if delegate_first:
            delegate.__del__()  # destroys the native delegate now, whoever still holds the wrapper
        del interpreter
        gc.collect()
        del delegate
        gc.collect()


def test_a_used_interpreter_runs_on_after_its_delegate_is_gone() -> None:
    delegate = _delegate()
    interpreter = Interpreter(model_content=_model(), experimental_delegates=[delegate])
    _run(interpreter, 40)
    delegate.__del__()
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    _assert_close(got, _expected(4, 40))


@pytest.mark.parametrize("shared", [False, True])
def test_two_threads_with_an_interpreter_each(shared: bool) -> None:
    common = _delegate()

    def work(bits: int) -> None:
        delegate = common if shared else _delegate()
        for _ in range(3):
            interpreter = Interpreter(model_content=_model(bits), experimental_delegates=[delegate])
            for frames in (35, 120):
                _assert_close(_run(interpreter, frames), _expected(bits, frames))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (3, 8, 3, 8)))


def test_another_model_at_the_same_address_is_another_model() -> None:
    delegate = _delegate()
    data, other = _model(), emit_tflite(tiny_artifact(4, seed=1), lowering="voxpress")
    interpreter = Interpreter(model_content=data, experimental_delegates=[delegate])
    _assert_close(_run(interpreter, 40), _expected(4, 40))
    del interpreter
    overwrite(data, other)
    expected = decode(tiny_artifact(4, seed=1))(torch.from_numpy(_features(40))[None])[0].numpy()
    _assert_close(_run(Interpreter(model_content=data, experimental_delegates=[delegate]), 40), expected)


KERNELS_OF_A_RUN = """
import numpy as np
import ctypes
from exporters.native import native_path
from exporters.tflite.run import TfliteRunner
from tests.exporters.tflite.test_delegate import _assert_close, _expected, _features, _model
channels = (11, 19)  # AVX-512 leaves layers of up to eight to AVX2
_assert_close(TfliteRunner(_model(4, channels)).embed(_features(30)), _expected(4, 30, channels))
text = ctypes.create_string_buffer(4096)
ctypes.CDLL(str(native_path("tflite_delegate"))).voxpress_kernels_used(text, ctypes.c_size_t(len(text)))
print(*sorted(text.value.decode().split(",")))
"""


def _kernels_of_a_run(**variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", KERNELS_OF_A_RUN],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in done.stdout.split() if not name.startswith("statspool")]


@pytest.mark.parametrize("name", isas())
def test_the_environment_names_the_instruction_set(name: str) -> None:
    kernels = _kernels_of_a_run(VOXPRESS_KERNELS=name)
    assert kernels
    assert all(kernel.endswith(f"_{float_isa(name)}") and "_panel_" in kernel for kernel in kernels), kernels


def test_low_memory_runs_from_codes() -> None:
    kernels = _kernels_of_a_run(VOXPRESS_LOW_MEMORY="1")
    assert kernels
    assert all("_pal_" in kernel for kernel in kernels), kernels


def test_an_instruction_set_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXPRESS_KERNELS", "sse9")
    with pytest.raises(MissingToolError, match="an instruction set that this machine does not have"):
        TfliteRunner(_model())


def test_constants_that_are_hardly_aligned_are_accepted() -> None:
    data = altered(lambda _: None)
    model = schema.Model.GetRootAs(data, 0)
    start = np.frombuffer(data, np.uint8).ctypes.data
    filled = [model.Buffers(i) for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    assert any((buffer.DataAsNumpy().ctypes.data - start) % 16 for buffer in filled)
    _assert_close(TfliteRunner(data).embed(_features(40)), _expected(4, 40))


def test_names_the_kernels_that_ran() -> None:
    TfliteRunner(_model()).embed(_features(30))
    library = ctypes.CDLL(str(native_path("tflite_delegate")))
    library.voxpress_kernels_used.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.voxpress_kernels_used.restype = ctypes.c_size_t
    text = ctypes.create_string_buffer(4096)
    assert library.voxpress_kernels_used(text, 4096) == len(text.value)
    assert {name.split("_")[0] for name in text.value.decode().split(",")} >= {"conv2d", "statspool"}


def test_exports_its_functions_and_needs_no_tflite_symbols() -> None:
    listing = subprocess.run(
        ["nm", "-D", str(native_path("tflite_delegate"))], check=True, capture_output=True, text=True
    ).stdout
    exported = {line.split()[-1] for line in listing.splitlines() if " T " in line}
    assert exported == {
        "tflite_plugin_create_delegate",
        "tflite_plugin_destroy_delegate",
        "voxpress_kernels_used",
        "voxpress_memory_use",
        "voxpress_register_litert_accelerator",
    }
    needed = {line.split()[-1] for line in listing.splitlines() if " U " in line}
    assert not [symbol for symbol in needed if "tflite" in symbol.lower()]


@pytest.mark.parametrize("options", [{"threads": "2"}, {"low_memory": "yes"}, {"low_memory": "1", "": "1"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="the delegate's one option is low_memory, 0 or 1"):
        load_delegate(str(native_path("tflite_delegate")), options)


def _set_type(which: int, value: int, node: int = 0) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor(model, custom_nodes(model)[node].inputs[which]).type = value

    return change


def _input(which: int, value: int, node: int = 0) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        inputs = list(custom_nodes(model)[node].inputs)
        inputs[which] = value
        custom_nodes(model)[node].inputs = inputs

    return change


def _shorter(which: int, shape: list[int], size: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        victim = tensor(model, custom_nodes(model)[0].inputs[which])
        victim.shape = shape
        model.buffers[victim.buffer].data = np.zeros(size, np.uint8)

    return change


def _options(raw: bytes, node: int = 0) -> Callable[[Any], None]:
    return lambda model: setattr(custom_nodes(model)[node], "customOptions", np.frombuffer(raw, np.uint8))


def _at(offset: int, fmt: str, value: int, node: int = 0) -> Callable[[Any], None]:
    return lambda model: set_option(model, offset, struct.pack(f"<{fmt}", value), node)


def _drop_input(node: int) -> Callable[[Any], None]:
    return lambda model: setattr(custom_nodes(model)[node], "inputs", list(custom_nodes(model)[node].inputs)[:-1])


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "no options": (_options(b""), "wrong size"),
    "short options": (_options(b"VXC2\x01\x00"), "wrong size"),
    "long options": (_options(b"VXC2" + bytes(200)), "wrong size"),
    "foreign magic": (_at(0, "I", 0), "wrong magic"),
    "future version": (_at(4, "H", 2), "unknown op version"),
    "0 bits": (_at(6, "B", 0), "bits is not 1..8 or 32"),
    "9 bits": (_at(6, "B", 9), "bits is not 1..8 or 32"),
    "fewer bits than codes": (_at(6, "B", 3), "wrong number of bytes"),
    "32 bits with a palette": (_at(6, "B", 32), "wrong number of bytes"),
    "relu 2": (_at(7, "B", 2), "relu"),
    "zero kernel": (_at(8, "i", 0), "out of range"),
    "huge kernel": (_at(12, "i", 2**31 - 1), "out of range"),
    "stride 0": (_at(16, "i", 0), "out of range"),
    "negative stride": (_at(20, "i", -1), "out of range"),
    "negative padding": (_at(24, "i", -1), "out of range"),
    "huge padding": (_at(28, "i", 2**31 - 1), "out of range"),
    "0 groups": (_at(32, "i", 0), "out of range"),
    "groups that do not divide": (_at(32, "i", 3), "out of range"),
    "reserved field": (_at(36, "i", 1), "reserved"),
    "one input too few": (_drop_input(0), "wrong number of inputs"),
    "no codes": (_input(1, -1), "an input is missing"),
    "no palette": (_input(2, -1), "a buffer is missing"),
    "codes that are x": (_input(1, 0), "codes are not a constant uint8 vector"),
    "palette that is x": (_input(2, 0), "the palette is not a constant float32 vector"),
    "scale that is x": (_input(3, 0), "scale and bias are not constant"),
    "residual of another shape": (_input(5, 1), "residual is not float32 of the output's shape"),
    "int8 codes": (_set_type(1, schema.TensorType.INT8), "codes are not a constant uint8 vector"),
    "int32 palette": (_set_type(2, schema.TensorType.INT32), "the palette is not a constant float32 vector"),
    "int32 bias": (_set_type(4, schema.TensorType.INT32), "scale and bias are not constant"),
    "codes cut short": (_shorter(1, [10], 10), "wrong number of bytes"),
    "palette cut short": (_shorter(2, [8], 32), "wrong number of bytes"),
    "bias cut short": (_shorter(4, [4], 16), "wrong number of bytes"),
    "scale of another length": (_shorter(3, [6], 24), "wrong number of bytes"),
    "pooling without options": (_options(b"", POOL), "wrong size"),
    "pooling, foreign magic": (_at(0, "I", 0, POOL), "wrong magic"),
    "pooling, future version": (_at(4, "H", 9, POOL), "unknown op version"),
    "pooling, reserved": (_at(6, "H", 1, POOL), "reserved"),
    "pooling over 3 dimensions": (_input(0, 0, POOL), "x is not float32"),
    "pooling without input": (_input(0, -1, POOL), "an input is missing"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_nodes_are_refused_with_a_reason(case: str) -> None:
    change, reason = HOSTILE[case]
    with pytest.raises(InputError, match=reason):
        TfliteRunner(altered(change))


def test_the_unaltered_model_passes() -> None:
    _assert_close(TfliteRunner(altered(lambda _: None)).embed(_features(40)), _expected(4, 40))


def test_a_length_that_leaves_no_output_is_refused_and_the_next_one_runs() -> None:
    def no_time_padding(model: Any) -> None:
        set_option(model, 24, struct.pack("<i", 0))  # first layer
        set_option(model, 24, struct.pack("<i", 0), node=1)
        inputs = list(custom_nodes(model)[2].inputs)
        custom_nodes(model)[2].inputs = [*inputs[:5], -1]  # its residual has two more frames now

    runner = TfliteRunner(altered(no_time_padding))
    with pytest.raises(InputError, match="out of range"):
        runner.embed(_features(3))
    assert np.isfinite(runner.embed(_features(60))).all()
