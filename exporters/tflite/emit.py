"""From an artifact to a .tflite file, written directly, without a converter in between.

Two lowerings of the same program:

- `voxpress`: every layer is one custom op with its packed codes, palette, scale and bias, run by our delegate.
- `stock`: builtin ops only, weights expanded to fp32 with the scale folded in. It runs in any TFLite runtime: the
  fp32 control of a measurement and the fallback model.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.fast import FastLayer, FastProgram, Quantization
from exporters.frontend import fbank_numbers
from exporters.manifest import (
    CONV2D_U8_VERSION,
    CONV2D_VERSION,
    FBANK_VERSION,
    STATS_POOL_VERSION,
    WAVEFORM_NAME,
    LongAudio,
    Lowering,
    ModelInput,
    check_waveform,
    model_manifest,
)
from exporters.tflite.graph import ABSENT, Graph
from pipeline.artifact.schema import INPUT_NAME, STATS_POOL_EPSILON, Conv2dNode, StatsPoolNode, conv_out_size
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.errors import InputError
from pipeline.features.fbank import samples_of
from pipeline.features.spec import FrontEndSpec

CONV2D_OP = "voxpress.conv2d"
CONV2D_U8_OP = "voxpress.conv2d_u8"
STATS_POOL_OP = "voxpress.stats_pool"
FBANK_OP = "voxpress.fbank"
OUR_OPS = (CONV2D_OP, CONV2D_U8_OP, STATS_POOL_OP, FBANK_OP)
OUTPUT_NAME = "embedding"
# Frames of the input until the caller resizes it: two seconds, so that tools that never resize measure a fair length.
DEFAULT_FRAMES = 200

_RELU = schema.ActivationFunctionType.RELU
_NO_ACTIVATION = schema.ActivationFunctionType.NONE

# What the custom options say of tensors that are not u8.
_UNUSED = Quantization(1.0, 0)


def emit_tflite(
    artifact: LoadedArtifact,
    *,
    lowering: Lowering,
    model_input: ModelInput = "fbank",
    long_audio: LongAudio | None = None,
    fast: FastProgram | None = None,
) -> bytes:
    """The .tflite file of an artifact: signature `serving_default`, features [N, T, mel] -> embedding [N, E].

    N and T are dynamic (resize the input); the file says 1 and 200. With the input `waveform`, it takes samples [N, S]
    in [-1, 1) and makes the features itself; only `voxpress` can. With `fast`, activations are u8 as it says. The
    metadata entry `voxpress_manifest` is the JSON text of a ModelManifest.
    Raises InputError if the program does not end in one vector per utterance, for an unknown lowering, or for stock ops
    on samples.
    """
    if lowering not in ("voxpress", "stock"):
        raise InputError("lowering", expected="voxpress or stock", found=repr(lowering))
    if model_input == "waveform":
        check_waveform(lowering)
    if lowering == "stock":
        writer: _Writer = _StockWriter(artifact)
    else:
        writer = _VoxPressWriter(artifact) if fast is None else _FastWriter(artifact, fast)
    return writer.write(lowering, model_input, long_audio)


@dataclass(frozen=True)
class _Value:
    """A tensor [1, frames, mel, channels] of the graph; `dynamic`: frames follows the input's length."""

    index: int
    frames: int
    mel: int
    channels: int
    dynamic: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (1, self.frames, self.mel, self.channels)


class _Writer(ABC):
    """What both lowerings share: the walk over the program, the input and the output."""

    def __init__(self, artifact: LoadedArtifact) -> None:
        self.artifact = artifact
        self.graph = Graph()
        self.fast: FastProgram | None = None

    @abstractmethod
    def conv2d(self, layer: StoredLayer, x: _Value, residual: _Value | None) -> _Value:
        """Append a layer; returns its output."""

    @abstractmethod
    def stats_pool(self, node: StatsPoolNode, x: _Value) -> _Value:
        """Append statistics pooling; returns its output."""

    def write(self, lowering: Lowering, model_input: ModelInput, long_audio: LongAudio | None) -> bytes:
        header = self.artifact.header
        mel = header.frontend.num_mel_bins
        features = self.graph.value(INPUT_NAME, (1, DEFAULT_FRAMES, mel), dynamic_axis=1)
        source, source_name = features, INPUT_NAME
        if model_input == "waveform":
            source, source_name = self._waveform(header.frontend, features), WAVEFORM_NAME
        x = self._new("features.channels_last", DEFAULT_FRAMES, mel, 1, dynamic=True)
        last_axis = self.graph.constant("last_axis", np.array(-1, np.int32))
        self.graph.builtin("EXPAND_DIMS", [features, last_axis], x.index, options=schema.ExpandDimsOptionsT())
        values = {INPUT_NAME: x}
        for node in header.program:
            if isinstance(node, Conv2dNode):
                residual = None if node.residual is None else values[node.residual]
                values[node.name] = self.conv2d(self.artifact.layers[node.name], values[node.input], residual)
            else:
                values[node.name] = self.stats_pool(node, values[node.input])
        last = values[header.program[-1].name]
        if last.dynamic or last.shape != (1, 1, 1, header.embedding_dim):
            raise InputError(
                f"artifact {header.name}",
                expected=f"a program that ends in [N, 1, 1, {header.embedding_dim}]",
                found=f"[N, {'T' if last.dynamic else last.frames}, {last.mel}, {last.channels}]",
            )
        embedding = self.graph.value(OUTPUT_NAME, (1, header.embedding_dim))
        self.reshape(last.index, embedding, (-1, header.embedding_dim))
        manifest = model_manifest(
            self.artifact,
            lowering,
            max_frames=None,
            max_batch=None,
            model_input=model_input,
            long_audio=long_audio,
            fast=self.fast,
        )
        return self.graph.finish(
            inputs={source_name: source},
            outputs={OUTPUT_NAME: embedding},
            manifest=manifest.model_dump_json(),
            description=f"VoxPress {header.name}, {lowering} ops, mode {'exact' if self.fast is None else 'fast'}",
        )

    def _waveform(self, spec: FrontEndSpec, features: int) -> int:
        """Index of a new input, samples, that the front end makes `features` of."""
        samples = self.graph.value(WAVEFORM_NAME, (1, samples_of(DEFAULT_FRAMES, spec)), dynamic_axis=1)
        self.graph.custom(FBANK_OP, [samples], features, options=fbank_options(spec))
        return samples

    def out_value(self, node: Conv2dNode, x: _Value, name: str) -> _Value:
        """The tensor that a convolution over x gives."""
        frames = conv_out_size(x.frames, node.kernel[0], node.stride[0], node.padding[0])
        mel = conv_out_size(x.mel, node.kernel[1], node.stride[1], node.padding[1])
        if frames < 1:
            raise InputError(
                f"layer {node.name}", expected=f"an output for {DEFAULT_FRAMES} frames of input", found="none"
            )
        output = None if self.fast is None else self.fast.layer(node).output
        return self._new(name, frames, mel, node.out_channels, dynamic=x.dynamic, quantization=output)

    def pooled_value(self, name: str, x: _Value) -> _Value:
        """The tensor that statistics pooling over x gives."""
        return self._new(name, 1, 1, 2 * x.mel * x.channels, dynamic=False)

    def like(self, x: _Value, name: str, **changes: Any) -> _Value:
        """A new tensor of x's shape, but for the changes."""
        shape = {"frames": x.frames, "mel": x.mel, "channels": x.channels, "dynamic": x.dynamic, **changes}
        return self._new(name, shape["frames"], shape["mel"], shape["channels"], dynamic=shape["dynamic"])

    def reshape(self, source: int, target: int, shape: tuple[int, ...]) -> None:
        sizes = self.graph.constant(f"shape.{target}", np.array(shape, np.int32))
        self.graph.builtin("RESHAPE", [source, sizes], target, options=schema.ReshapeOptionsT(newShape=list(shape)))

    def _new(
        self,
        name: str,
        frames: int,
        mel: int,
        channels: int,
        *,
        dynamic: bool,
        quantization: Quantization | None = None,
    ) -> _Value:
        shape, axis = (1, frames, mel, channels), 1 if dynamic else None
        if quantization is None:
            index = self.graph.value(name, shape, dynamic_axis=axis)
        else:
            index = self.graph.quantized_value(name, shape, quantization.scale, quantization.zero, dynamic_axis=axis)
        return _Value(index, frames, mel, channels, dynamic)


class _VoxPressWriter(_Writer):
    """One custom op per node; see exporters/tflite/native/options.h for the layout of their options."""

    def conv2d(self, layer: StoredLayer, x: _Value, residual: _Value | None) -> _Value:
        node = layer.node
        constant = partial(self._constant, node.name)
        if layer.codes is not None and layer.palette is not None:
            codes, palette = constant("codes", layer.codes), constant("palette", layer.palette)
        else:
            codes, palette = constant("codes", layer.dense_weight().reshape(-1).view(np.uint8)), ABSENT
        y = self.out_value(node, x, node.name)
        inputs = [x.index, codes, palette, constant("scale", layer.scale), constant("bias", layer.bias)]
        inputs.append(ABSENT if residual is None else residual.index)
        self.convolution(node, inputs, y.index)
        return y

    def convolution(self, node: Conv2dNode, inputs: list[int], output: int) -> None:
        """Append the op of a layer."""
        self.graph.custom(CONV2D_OP, inputs, output, options=conv2d_options(node))

    def stats_pool(self, node: StatsPoolNode, x: _Value) -> _Value:
        y = self.pooled_value(node.name, x)
        self.graph.custom(STATS_POOL_OP, [x.index], y.index, options=stats_pool_options())
        return y

    def _constant(self, layer: str, name: str, data: Any) -> int:
        return self.graph.constant(f"{layer}.{name}", data)


class _FastWriter(_VoxPressWriter):
    """The same with u8 activations; their scales and zeros are in the options and, for other tools, in the tensors."""

    def __init__(self, artifact: LoadedArtifact, fast: FastProgram) -> None:
        super().__init__(artifact)
        self.fast = fast
        self._program = fast

    def convolution(self, node: Conv2dNode, inputs: list[int], output: int) -> None:
        """Append the op of a layer."""
        self.graph.custom(CONV2D_U8_OP, inputs, output, options=conv2d_u8_options(node, self._program.layer(node)))


def conv2d_options(node: Conv2dNode) -> bytes:
    """Custom options of `voxpress.conv2d`, 40 bytes, little-endian."""
    sizes = (*node.kernel, *node.stride, *node.padding, node.groups, 0)
    return struct.pack("<4sHBB8i", b"VXC2", CONV2D_VERSION, node.bits, node.relu, *sizes)


def conv2d_u8_options(node: Conv2dNode, fast: FastLayer) -> bytes:
    """Custom options of `voxpress.conv2d_u8`, 64 bytes, little-endian."""
    sizes = (*node.kernel, *node.stride, *node.padding, node.groups)
    tensors = (fast.input, fast.residual, fast.output)
    elements = [tensor is not None for tensor in tensors]
    ranges = [number for tensor in tensors for number in ((tensor or _UNUSED).scale, (tensor or _UNUSED).zero)]
    start = (b"VXU8", CONV2D_U8_VERSION, node.bits, node.relu)
    return struct.pack("<4sHBB7i4B" + 3 * "fi", *start, *sizes, *elements, int(fast.algorithm), *ranges)


def stats_pool_options() -> bytes:
    """Custom options of `voxpress.stats_pool`, 8 bytes, little-endian."""
    return struct.pack("<4sHH", b"VXSP", STATS_POOL_VERSION, 0)


def fbank_options(spec: FrontEndSpec) -> bytes:
    """Custom options of `voxpress.fbank`, 44 bytes, little-endian."""
    n = fbank_numbers(spec)
    sizes = (n.sample_rate_hz, n.window_samples, n.shift_samples, n.num_mel_bins)
    values = (n.sample_scale, n.preemphasis, n.low_hz, n.high_hz)
    return struct.pack("<4sHBB4i4fi", b"VXFB", FBANK_VERSION, n.window, n.flags, *sizes, *values, 0)


class _StockWriter(_Writer):
    """Builtin ops in the forms that XNNPACK takes; activations stay NHWC throughout."""

    def conv2d(self, layer: StoredLayer, x: _Value, residual: _Value | None) -> _Value:
        node = layer.node
        # act(scale * conv + bias): the scale goes into the weights, whose first axis is the output channel.
        weight = layer.dense_weight() * layer.scale[:, None, None, None]
        fused = _RELU if node.relu and residual is None else _NO_ACTIVATION
        y = self.out_value(node, x, node.name if residual is None else f"{node.name}.sum")
        depthwise = node.groups == node.in_channels > 1
        if depthwise:
            weight = weight.transpose(3, 1, 2, 0)  # [1, kt, kf, O]
        constants = [self.graph.constant(f"{node.name}.weight", weight)]
        constants.append(self.graph.constant(f"{node.name}.bias", layer.bias))
        x, padding = self._padded(node, x)
        stride = {"padding": padding, "strideH": node.stride[0], "strideW": node.stride[1]}
        if depthwise:
            options = schema.DepthwiseConv2DOptionsT(
                **stride, depthMultiplier=node.out_channels // node.in_channels, fusedActivationFunction=fused
            )
            self.graph.builtin("DEPTHWISE_CONV_2D", [x.index, *constants], y.index, options=options)
        else:
            options = schema.Conv2DOptionsT(**stride, fusedActivationFunction=fused)
            self.graph.builtin("CONV_2D", [x.index, *constants], y.index, options=options)
        if residual is None:
            return y
        out = self.like(y, node.name)
        add = schema.AddOptionsT(fusedActivationFunction=_RELU if node.relu else _NO_ACTIVATION)
        self.graph.builtin("ADD", [y.index, residual.index], out.index, options=add)
        return out

    def stats_pool(self, node: StatsPoolNode, x: _Value) -> _Value:
        """Mean and sqrt(sum((x - mean)^2) / max(T - 1, 1) + 1e-7), with T read from the tensor at run time."""
        graph, pooled = self.graph, partial(self.like, x, frames=1, dynamic=False)
        axis = graph.constant(f"{node.name}.axis", np.array([1], np.int32))
        mean = pooled(f"{node.name}.mean").index
        keep = schema.ReducerOptionsT(keepDims=True)
        graph.builtin("MEAN", [x.index, axis], mean, options=keep)
        squares = self.like(x, f"{node.name}.squares").index
        graph.builtin("SQUARED_DIFFERENCE", [x.index, mean], squares, options=schema.SquaredDifferenceOptionsT())
        total = graph.builtin("SUM", [squares, axis], pooled(f"{node.name}.total").index, options=keep)
        variance = pooled(f"{node.name}.variance").index
        graph.builtin("DIV", [total, self._degrees_of_freedom(node, x, axis)], variance, options=schema.DivOptionsT())
        epsilon = graph.constant(f"{node.name}.epsilon", np.array([STATS_POOL_EPSILON], np.float32))
        shifted = pooled(f"{node.name}.shifted").index
        graph.builtin("ADD", [variance, epsilon], shifted, options=schema.AddOptionsT())
        deviation = graph.builtin("SQRT", [shifted], pooled(f"{node.name}.deviation").index)
        # Mean and deviation [1, 1, mel, C] -> [1, 2, mel, C] -> [1, 1, 1, 2 * mel * C], mel-major already.
        both = self.like(x, f"{node.name}.both", frames=2, dynamic=False).index
        graph.builtin("CONCATENATION", [mean, deviation], both, options=schema.ConcatenationOptionsT(axis=1))
        y = self.pooled_value(node.name, x)
        self.reshape(both, y.index, (-1, *y.shape[1:]))
        return y

    def _degrees_of_freedom(self, node: StatsPoolNode, x: _Value, axis: int) -> int:
        """Index of a float [1] tensor: max(T - 1, 1)."""
        graph, name = self.graph, node.name
        sizes = graph.value(f"{name}.sizes", (4,), dtype=np.int32)
        graph.builtin("SHAPE", [x.index], sizes, options=schema.ShapeOptionsT(outType=schema.TensorType.INT32))
        frames = graph.value(f"{name}.frames", (1,), dtype=np.int32)
        graph.builtin("GATHER", [sizes, axis], frames, options=schema.GatherOptionsT(axis=0))
        count = graph.value(f"{name}.count", (1,))
        cast = schema.CastOptionsT(inDataType=schema.TensorType.INT32, outDataType=schema.TensorType.FLOAT32)
        graph.builtin("CAST", [frames], count, options=cast)
        one = graph.constant(f"{name}.one", np.array([1], np.float32))
        less_one = graph.builtin(
            "SUB", [count, one], graph.value(f"{name}.count_less_one", (1,)), options=schema.SubOptionsT()
        )
        at_least_one = graph.value(f"{name}.degrees_of_freedom", (1,))
        return graph.builtin("MAXIMUM", [less_one, one], at_least_one, options=schema.MaximumMinimumOptionsT())

    def _padded(self, node: Conv2dNode, x: _Value) -> tuple[_Value, int]:
        """The convolution's input and TFLite padding scheme: SAME or VALID where they mean the same, else a PAD."""
        if node.padding == (0, 0):
            return x, schema.Padding.VALID
        if node.stride == (1, 1) and all(2 * p == k - 1 for p, k in zip(node.padding, node.kernel, strict=True)):
            return x, schema.Padding.SAME
        (frames, mel) = node.padding
        sizes = np.array([[0, 0], [frames, frames], [mel, mel], [0, 0]], np.int32)
        padded = self.like(x, f"{node.name}.padded", frames=x.frames + 2 * frames, mel=x.mel + 2 * mel)
        self.graph.builtin(
            "PAD",
            [x.index, self.graph.constant(f"{node.name}.padding", sizes)],
            padded.index,
            options=schema.PadOptionsT(),
        )
        return padded, schema.Padding.VALID
