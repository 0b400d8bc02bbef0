"""`voxpress.conv2d_u8` in the stock runtime: what it computes, what it refuses, and that ExecuTorch gives the same."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, load_delegate

from exporters.fast import Algorithm, FastLayer, Quantization
from exporters.manifest import CONV2D_U8_VERSION, model_manifest
from exporters.native import native_path
from exporters.pte.ops import unpack_codes
from exporters.tflite.emit import CONV2D_U8_OP, conv2d_u8_options, emit_tflite
from exporters.tflite.graph import ABSENT, Graph
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.artifact.schema import Conv2dNode
from pipeline.errors import InputError
from tests.exporters.tflite.models import custom_nodes, pack, set_option, tensor, unpack
from tests.factories import noise_program, noise_utterances, random_layer, tiny_artifact

IN, RESIDUAL = Quantization(0.03125, 100), Quantization(0.046875, 7)
BATCH, FRAMES, MEL, CHANNELS = 3, 13, 6, 20


def _node(**changes: Any) -> Conv2dNode:
    shape = {"kernel": (3, 3), "padding": (1, 1), "in_channels": CHANNELS, "out_channels": 24, **changes}
    return Conv2dNode(name="layer", input="features", bits=4, **shape)  # type: ignore[arg-type]


NODES = {
    "3x3": _node(),
    "3x3 with relu": _node(relu=True),
    "stride 2": _node(stride=(2, 2)),
    "1x1": _node(kernel=(1, 1), padding=(0, 0)),
    "2x2 of stride 2": _node(kernel=(2, 2), padding=(0, 0), stride=(2, 2)),
    "depthwise": _node(groups=CHANNELS, out_channels=CHANNELS),
}


def _random(rng: np.random.Generator, shape: tuple[int, ...], q: Quantization | None) -> np.ndarray:
    if q is None:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, 256, shape).astype(np.uint8)


def _run(node: Conv2dNode, fast: FastLayer, x: np.ndarray, residual: np.ndarray | None, out: np.ndarray) -> np.ndarray:
    """One op in a graph of its own: x and residual are its inputs."""
    layer, graph = random_layer(node, np.random.default_rng(3)), Graph()
    values = []
    for name, data, q in (("x", x, fast.input), ("residual", residual, fast.residual), ("y", out, fast.output)):
        if data is None:
            values.append(ABSENT)
        elif q is None:
            values.append(graph.value(name, data.shape))
        else:
            values.append(graph.quantized_value(name, data.shape, q.scale, q.zero))
    constants = [graph.constant(name, getattr(layer, name)) for name in ("codes", "palette", "scale", "bias")]
    options = conv2d_u8_options(node, fast)
    graph.custom(CONV2D_U8_OP, [values[0], *constants, values[1]], values[2], options=options)
    inputs = {"x": values[0]} | ({} if residual is None else {"residual": values[1]})
    data = graph.finish(inputs=inputs, outputs={"y": values[2]}, manifest="{}", description="one layer")
    delegate = load_delegate(str(native_path("tflite_delegate")))
    interpreter = Interpreter(model_content=data, experimental_delegates=[delegate])
    interpreter.allocate_tensors()
    for index, value in zip(inputs.values(), (x, residual), strict=False):
        interpreter.set_tensor(index, value)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(values[2]))


def _eager(
    node: Conv2dNode, fast: FastLayer, x: np.ndarray, residual: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The op by its formula in torch: the output, and the real numbers before they are rounded to it."""
    layer = random_layer(node, np.random.default_rng(3))
    assert layer.codes is not None
    assert layer.palette is not None

    def real(data: np.ndarray, q: Quantization | None) -> torch.Tensor:
        values = torch.from_numpy(data).float()
        return values if q is None else (values - q.zero) * q.scale

    codes = unpack_codes(torch.from_numpy(layer.codes.copy()), node.bits, node.weight_count)
    # The kernels round palettes to multiples of a 127th of their largest value.
    step = np.abs(layer.palette).max() / 127
    palette = torch.from_numpy(np.rint(layer.palette / step).astype(np.float32) * step)
    weight = palette[codes].reshape(node.weight_shape).permute(0, 3, 1, 2)
    y = torch.nn.functional.conv2d(
        real(x, fast.input).permute(0, 3, 1, 2), weight, None, node.stride, node.padding, 1, node.groups
    )
    y = y.permute(0, 2, 3, 1) * torch.from_numpy(layer.scale) + torch.from_numpy(layer.bias)
    if residual is not None:
        y = y + real(residual, fast.residual)
    y = y.relu() if node.relu else y
    q = fast.output
    rounded = y if q is None else (y / q.scale).round().add(q.zero).clamp(0, 255).to(torch.uint8)
    return rounded.numpy(), y.numpy()


@pytest.mark.parametrize("case", NODES)
@pytest.mark.parametrize("x_u8", [False, True])
@pytest.mark.parametrize("residual", ["none", "float", "u8"])
@pytest.mark.parametrize("out_u8", [False, True])
def test_it_computes_its_formula_in_batches_and_with_zero_points(
    case: str, x_u8: bool, residual: str, out_u8: bool
) -> None:
    node, rng = NODES[case], np.random.default_rng(1)
    x = _random(rng, (BATCH, FRAMES, MEL, CHANNELS), IN if x_u8 else None)
    fast = FastLayer(IN if x_u8 else None, RESIDUAL if residual == "u8" else None, None, Algorithm.DIRECT)
    shape = _eager(node, fast, x, None)[0].shape
    added = None if residual == "none" else _random(rng, shape, fast.residual)
    real = _eager(node, fast, x, added)[1]
    low, high = min(float(real.min()), 0.0), float(real.max())
    scale = float(np.float32((high - low) / 255))
    if out_u8:
        fast = FastLayer(fast.input, fast.residual, Quantization(scale, round(-low / scale)), Algorithm.DIRECT)
    expected, _ = _eager(node, fast, x, added)
    got = _run(node, fast, x, added, expected)
    assert got.dtype == expected.dtype
    # fp32 sums in another order; of bytes, a sum next to half a step may go either way.
    error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    assert error.max() <= (1 if out_u8 else 1e-5 * np.abs(real).max())
    assert not out_u8 or np.mean(error) < 1e-3


@pytest.mark.parametrize("algorithm", [Algorithm.WINOGRAD2, Algorithm.WINOGRAD4])
def test_winograd_is_near_it(algorithm: Algorithm) -> None:
    node, rng = NODES["3x3"], np.random.default_rng(1)
    x = _random(rng, (BATCH, FRAMES, MEL, CHANNELS), IN)
    expected, _ = _eager(node, FastLayer(IN, None, None, algorithm), x, None)
    got = _run(node, FastLayer(IN, None, None, algorithm), x, None, expected)
    error = np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))
    assert 1e-4 < error < 0.05  # transformed inputs are rounded to a 127th of the largest of a tile


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_network_of_any_width_is_near_its_reference_at_any_length(bits: int, depthwise: bool) -> None:
    artifact = tiny_artifact(bits, depthwise=depthwise)
    runner = TfliteRunner(emit_tflite(artifact, lowering="voxpress", fast=noise_program(artifact)))
    for frames in (30, 98, 200, 30):
        features = next(iter(noise_utterances(1, frames).values()))
        got, wanted = runner.embed(features), decode(artifact)(torch.from_numpy(features)[None])[0].numpy()
        assert got @ wanted >= 0.9995 * np.linalg.norm(got) * np.linalg.norm(wanted), frames


def test_low_memory_gives_the_same_bytes() -> None:
    artifact = tiny_artifact(4)
    data = emit_tflite(artifact, lowering="voxpress", fast=noise_program(artifact))
    features = noise_utterances()["u0"]
    assert TfliteRunner(data, low_memory=True).embed(features).tobytes() == TfliteRunner(data).embed(features).tobytes()


THREADS_OF_A_RUN = """
import os, sys
from exporters.tflite.run import TfliteRunner
from exporters.tflite.emit import emit_tflite
from tests.factories import noise_program, noise_utterances, tiny_artifact
artifact = tiny_artifact(4)
fast = noise_program(artifact) if sys.argv[1] == "fast" else None
runner = TfliteRunner(emit_tflite(artifact, lowering="voxpress", fast=fast), threads=3)
embedding = runner.embed(noise_utterances(1, 300)["u0"])
print(len(os.listdir("/proc/self/task")), embedding.tobytes().hex())
"""


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_layers_run_on_the_runtimes_threads_to_the_same_bytes(mode: str) -> None:
    def run(**variables: str) -> tuple[int, str]:
        command = [sys.executable, "-c", THREADS_OF_A_RUN, mode]
        done = subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True, text=True)
        threads, embedding = done.stdout.split()
        return int(threads), embedding

    several, one = run(), run(VOXPRESS_THREADS="1")
    assert several[0] == one[0] + 2
    assert several[1] == one[1]


def test_the_file_says_what_its_bytes_stand_for() -> None:
    artifact = tiny_artifact(4)
    program = noise_program(artifact)
    data = emit_tflite(artifact, lowering="voxpress", fast=program)
    assert TfliteRunner(data).manifest == model_manifest(
        artifact, "voxpress", max_frames=None, max_batch=None, fast=program
    )
    tensors = {one.name.decode(): one for one in unpack(data).subgraphs[0].tensors}
    for name, q in program.bytes_of.items():
        assert tensors[name].type == schema.TensorType.UINT8
        assert (tensors[name].quantization.scale[0], tensors[name].quantization.zeroPoint[0]) == (q.scale, q.zero)
    assert tensors["down.conv2"].type == schema.TensorType.FLOAT32


SECOND, ADDS = 1, 2  # places of block.conv1, which reads bytes, and block.conv2, which adds some too


def _at(offset: int, fmt: str, value: float, node: int = SECOND) -> Callable[[Any], None]:
    return lambda model: set_option(model, offset, struct.pack(f"<{fmt}", value), node)


def _type(which: int, value: int, node: int = SECOND) -> Callable[[Any], None]:
    return lambda model: setattr(tensor(model, custom_nodes(model)[node].inputs[which]), "type", value)


def _quantization(scale: float, zero: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero])
        tensor(model, custom_nodes(model)[SECOND].inputs[0]).quantization = quantization

    return change


def _no_quantizations(then: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for one in model.subgraphs[0].tensors:
            one.quantization = None
        then(model)

    return change


def _options(raw: bytes) -> Callable[[Any], None]:
    return lambda model: setattr(custom_nodes(model)[SECOND], "customOptions", np.frombuffer(raw, np.uint8))


BAD_SCALE = "a quantization scale is not positive and finite"
HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "no options": (_options(b""), "wrong size"),
    "options of conv2d": (_options(b"VXC2\x01\x00" + bytes(34)), "wrong size"),
    "foreign magic": (_at(0, "I", 0), "wrong magic"),
    "future version": (_at(4, "H", CONV2D_U8_VERSION + 1), "unknown op version"),
    "9 bits": (_at(6, "B", 9), "bits is not 1..8 or 32"),
    "relu 2": (_at(7, "B", 2), "relu"),
    "0 groups": (_at(32, "i", 0), "out of range"),
    "huge kernel": (_at(8, "i", 2**31 - 1), "out of range"),
    "element 2": (_at(36, "B", 2), "an element type is neither 0 nor 1"),
    "float input that is bytes": (_at(36, "B", 0), "x is not float32"),
    "byte input that is float": (_at(36, "B", 1, 0), "x is not u8"),
    "float residual that is bytes": (_at(37, "B", 0, ADDS), "the residual is not float32 of the output's shape"),
    "float output that is bytes": (_at(38, "B", 0), "the output is not float32"),
    "algorithm 4": (_at(39, "B", 4), "the algorithm is unknown"),
    "Winograd on float": (_at(39, "B", 3, 0), "this layer cannot be run by it"),
    "scale 0": (_no_quantizations(_at(40, "f", 0.0)), BAD_SCALE),
    "negative scale": (_no_quantizations(_at(40, "f", -1.0)), BAD_SCALE),
    "NaN scale": (_no_quantizations(_at(56, "f", float("nan"))), BAD_SCALE),
    "infinite scale": (_no_quantizations(_at(48, "f", float("inf"), ADDS)), BAD_SCALE),
    "zero -1": (_no_quantizations(_at(44, "i", -1)), "a zero point is not 0..255"),
    "zero 256": (_no_quantizations(_at(60, "i", 256)), "a zero point is not 0..255"),
    "another scale than the tensor's": (_at(40, "f", 0.125), "a tensor's quantization is not that of the options"),
    "another zero than the options'": (_quantization(0.125, 3), "a tensor's quantization is not that of the options"),
    "int8 input": (_type(0, schema.TensorType.INT8), "not u8"),
    "int8 codes": (_type(1, schema.TensorType.INT8), "codes are not a constant uint8 vector"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_nodes_are_refused_with_a_reason(case: str) -> None:
    change, reason = HOSTILE[case]
    artifact = tiny_artifact(4)
    model = unpack(emit_tflite(artifact, lowering="voxpress", fast=noise_program(artifact)))
    change(model)
    with pytest.raises(InputError, match=reason):
        TfliteRunner(pack(model))


def test_tensors_may_leave_their_quantization_to_the_options() -> None:
    artifact = tiny_artifact(4)
    data = emit_tflite(artifact, lowering="voxpress", fast=noise_program(artifact))
    model = unpack(data)
    _no_quantizations(lambda _: None)(model)
    features = noise_utterances()["u0"]
    assert TfliteRunner(pack(model)).embed(features).tobytes() == TfliteRunner(data).embed(features).tobytes()
