"""LiteRT 2's C API from C++, where delegates come as accelerators."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest

from exporters.manifest import ModelInput
from exporters.native import native_path
from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from tests.factories import tiny_artifact

NOT_FOUND, LITERT_OK = -1, 0


def _litert() -> Path:
    spec = importlib.util.find_spec("ai_edge_litert")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "libLiteRt.so"


def _run(
    model: Path, width: int, lengths: tuple[int, ...], *, register: bool = True
) -> subprocess.CompletedProcess[str]:
    program = native_path("tflite_delegate").parent / "voxpress_litert_capi"
    words = [program, _litert(), native_path("tflite_delegate"), model, int(register), width, *lengths]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, check=False)


def _input(length: int, width: int) -> np.ndarray:
    count = length * max(width, 1)
    values = ((np.arange(count) * 7919 % 2001).astype(np.float32) - np.float32(1000)) / np.float32(1000)
    return values.reshape(length, width) if width else values


@pytest.mark.parametrize(
    ("model_input", "width", "lengths"),
    [("fbank", 80, (30, 98, 200, 301, 30)), ("waveform", 0, (4800, 16000, 40_001, 4800))],
)
def test_compiled_models_give_the_bits_of_the_interpreter(
    model_input: ModelInput, width: int, lengths: tuple[int, ...], tmp_path: Path
) -> None:
    data = emit_tflite(tiny_artifact(4), lowering="voxpress", model_input=model_input)
    (tmp_path / "m.tflite").write_bytes(data)
    done = _run(tmp_path / "m.tflite", width, lengths)
    assert done.returncode == 0, done.stderr
    found = [np.frombuffer(bytes.fromhex(line), np.float32) for line in done.stdout.splitlines()]
    runner = TfliteRunner(data)
    assert len(found) == len(lengths)
    for length, embedding in zip(lengths, found, strict=True):
        np.testing.assert_array_equal(embedding, runner.embed(_input(length, width)))


def test_without_the_registration_our_ops_are_unresolved(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    done = _run(tmp_path / "m.tflite", 80, (40,), register=False)
    assert done.returncode == 3
    assert "unresolved custom op: voxpress.conv2d" in done.stderr


def test_a_library_that_lacks_a_function_is_told_apart() -> None:
    find = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)
    asked: list[bytes] = []
    nothing = find(lambda name: asked.append(name))
    register = ctypes.CDLL(str(native_path("tflite_delegate"))).voxpress_register_litert_accelerator
    texts = ctypes.POINTER(ctypes.c_char_p)
    register.argtypes = [ctypes.c_void_p, ctypes.c_void_p, texts, texts, ctypes.c_size_t, ctypes.c_void_p]
    many = (ctypes.c_char_p * 9)(*[b"low_memory"] * 9)
    assert register(None, nothing, None, None, 0, None) == NOT_FOUND
    assert register(1, nothing, many, many, 9, None) == NOT_FOUND
    assert not asked
    assert register(1, nothing, None, None, 0, None) == NOT_FOUND
    assert asked == [b"LiteRtWrapDelegate"]
