"""From an artifact to the bytes of an ExecuTorch file, with our ops or with stock ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge, to_edge_transform_and_lower
from torch import Tensor, nn
from torch.nn import functional

import exporters.pte.conv2d_u8
import exporters.pte.ops  # noqa: F401
from exporters.fast import FastLayer, FastProgram, Quantization
from exporters.frontend import FbankNumbers, fbank_numbers
from exporters.manifest import (
    CONV2D_U8_VERSION,
    CONV2D_VERSION,
    MANIFEST_KEY,
    STATS_POOL_VERSION,
    LongAudio,
    Lowering,
    ModelInput,
    check_waveform,
    model_manifest,
)
from exporters.pte.fbank_op import fbank
from pipeline.artifact.schema import INPUT_NAME, STATS_POOL_EPSILON, Conv2dNode
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.errors import InputError
from pipeline.features.fbank import max_frames, min_frames, samples_of
from pipeline.features.spec import FrontEndSpec

# Every constant starts on a cache line, so that kernels may read codes straight from the mapped file.
_CONSTANT_ALIGNMENT = 64

_CODES = "codes"  # name of a layer's buffer, with which the names of its nodes in the graph end

# What the ops are told of tensors that are not u8; they do not look at it.
_UNUSED = Quantization(1.0, 0)


@dataclass(frozen=True)
class FrameRange:
    """The utterance lengths, in frames, that a file takes."""

    minimum: int
    maximum: int


def frame_range(spec: FrontEndSpec, max_seconds: float) -> FrameRange:
    """Frames of the shortest utterance the front-end takes and of one of `max_seconds`.

    frames = 1 + floor((samples - window) / shift), as edges are snipped.
    Raises InputError if `max_seconds` gives no more frames than the shortest utterance.
    """
    limits = FrameRange(min_frames(spec), max_frames(max_seconds, spec))
    if limits.maximum <= limits.minimum:
        raise InputError("max_seconds", expected=f"more than {spec.min_seconds}", found=str(max_seconds))
    return limits


def emit_pte(
    artifact: LoadedArtifact,
    *,
    lowering: Lowering,
    max_seconds: float,
    model_input: ModelInput = "fbank",
    long_audio: LongAudio | None = None,
    fast: FastProgram | None = None,
    max_batch: int = 1,
) -> bytes:
    """The bytes of a .pte with the method `forward`: features [N, frames, mel] -> embedding [N, E], N <= max_batch.

    With the input `waveform`, forward takes samples [N, S] in [-1, 1) and makes the features itself; only `voxpress`
    can.

    `voxpress` keeps the packed codes and calls our ops; `stock` dequantizes to fp32 and calls XNNPACK and portable ops
    only. With `fast`, activations are u8 as it says. Memory is planned for `max_batch` utterances of `max_seconds`;
    fewer and shorter ones run as they are, down to the front-end's `min_seconds`. The file also answers the methods
    `min_frames`,
    `max_frames`, `chunk_frames` (0: none) and `voxpress_manifest` (JSON text), and for samples `window_samples` and
    `shift_samples`.
    Raises InputError if `max_seconds` is too small, or for stock ops on samples.
    """
    options = _Options(lowering, max_seconds, model_input, long_audio, fast, max_batch)
    return bytes(
        _lowered(artifact, options, ExecutorchBackendConfig(constant_tensor_alignment=_CONSTANT_ALIGNMENT)).buffer
    )


def emit_split_pte(
    artifact: LoadedArtifact,
    *,
    lowering: Lowering,
    max_seconds: float,
    model_input: ModelInput = "fbank",
    long_audio: LongAudio | None = None,
    fast: FastProgram | None = None,
    max_batch: int = 1,
) -> tuple[bytes, bytes]:
    """A .pte as `emit_pte` makes it of VoxPress ops, without its packed codes, and these as a .ptd.

    All programs of one artifact, whatever they take and in either mode, share one .ptd: mode fast has palettes of its
    own, but the same codes. Its name, which stands in the .pte's manifest and in its method `weights_file`, is
    `weights_file_name(artifact)`. Raises ValueError for stock ops, which have no codes.
    """
    if lowering != "voxpress":
        raise ValueError("stock ops have no codes to split off")
    name = weights_file_name(artifact)
    config = ExecutorchBackendConfig(
        constant_tensor_alignment=_CONSTANT_ALIGNMENT,
        external_constants=lambda node: name.removesuffix(".ptd") if node.name.endswith(_CODES) else None,
    )
    options = _Options(lowering, max_seconds, model_input, long_audio, fast, max_batch, name)
    program = _lowered(artifact, options, config)
    (weights,) = program._tensor_data.values()
    return bytes(program.buffer), bytes(weights)


def weights_file_name(artifact: LoadedArtifact) -> str:
    """<net>-<width>-<digest of all codes>.ptd: weights of another artifact have another name."""
    digest = hashlib.sha256()
    for layer in artifact.layers.values():
        codes = _codes(layer)
        digest.update(f"{layer.node.name} {codes.shape}\n".encode())
        digest.update(codes.tobytes())
    return f"{artifact.header.name}-{digest.hexdigest()[:12]}.ptd"


@dataclass(frozen=True)
class _Options:
    """What a program is lowered to; see `emit_pte`."""

    lowering: Lowering
    max_seconds: float
    model_input: ModelInput
    long_audio: LongAudio | None
    fast: FastProgram | None
    max_batch: int
    weights_file: str | None = None


def _lowered(artifact: LoadedArtifact, options: _Options, config: ExecutorchBackendConfig) -> Any:
    spec, lowering = artifact.header.frontend, options.lowering
    limits = frame_range(spec, options.max_seconds)
    manifest = model_manifest(
        artifact,
        lowering,
        max_frames=limits.maximum,
        max_batch=options.max_batch,
        model_input=options.model_input,
        long_audio=options.long_audio,
        fast=options.fast,
        weights_file=options.weights_file,
    )
    long_audio = options.long_audio
    answers: dict[str, int | str] = {
        "min_frames": limits.minimum,
        "max_frames": limits.maximum,
        "chunk_frames": 0 if long_audio is None else long_audio.chunk_frames,
        MANIFEST_KEY: manifest.model_dump_json(),
    }
    if options.weights_file is not None:
        answers["weights_file"] = options.weights_file
    numbers = None
    if options.model_input == "waveform":
        check_waveform(lowering)
        numbers = fbank_numbers(spec)
        example = torch.zeros(options.max_batch, samples_of(limits.maximum + 1, spec) - 1)
        length = torch.export.Dim("samples", min=samples_of(limits.minimum, spec), max=example.shape[1])
        answers |= {"window_samples": spec.window_samples, "shift_samples": spec.shift_samples}
    else:
        example = torch.zeros(options.max_batch, limits.maximum, spec.num_mel_bins)
        length = torch.export.Dim("frames", min=limits.minimum, max=limits.maximum)
    axes = {1: length}
    if options.max_batch > 1:
        axes[0] = torch.export.Dim("batch", min=1, max=options.max_batch)
    network: nn.Module
    network = PressedNetwork(artifact, options.fast, numbers) if lowering == "voxpress" else StockNetwork(artifact)
    with torch.no_grad():
        exported = torch.export.export(network.eval(), (example,), dynamic_shapes=(axes,))
    if lowering == "voxpress":
        edge = to_edge(exported, constant_methods=answers)
    else:
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], constant_methods=answers)
    return edge.to_executorch(config)


class PressedNetwork(nn.Module):
    """An artifact's program in VoxPress ops on packed codes: features [N, frames, mel] -> embedding [N, E].

    With the numbers of a front end, the input is samples [N, S].
    """

    def __init__(
        self, artifact: LoadedArtifact, fast: FastProgram | None = None, numbers: FbankNumbers | None = None
    ) -> None:
        super().__init__()
        self.header, self.numbers = artifact.header, numbers
        self.layers = nn.ModuleDict(
            {
                _key(name): _PackedLayer(layer) if fast is None else _FastLayer(layer, fast.layer(layer.node))
                for name, layer in artifact.layers.items()
            }
        )

    def forward(self, features: Tensor) -> Tensor:
        """[N, frames, mel], or [N, S] -> [N, E]."""
        if self.numbers is not None:
            features = fbank(features, self.numbers)
        batch, frames, mel = features.shape
        values = {INPUT_NAME: features.view(batch, frames, mel, 1)}
        for node in self.header.program:
            x = values[node.input]
            if isinstance(node, Conv2dNode):
                residual = None if node.residual is None else values[node.residual]
                values[node.name] = self.layers[_key(node.name)](x, residual)
            else:
                values[node.name] = torch.ops.voxpress.stats_pool(x, STATS_POOL_VERSION)
        return values[self.header.program[-1].name].view(batch, self.header.embedding_dim)


class _PackedLayer(nn.Module):
    codes: Tensor
    palette: Tensor | None
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__()
        self.node = layer.node
        self.register_buffer(_CODES, torch.from_numpy(_codes(layer).copy()))
        self.register_buffer("palette", None if layer.palette is None else torch.from_numpy(layer.palette.copy()))
        self.register_buffer("scale", torch.from_numpy(layer.scale.copy()))
        self.register_buffer("bias", torch.from_numpy(layer.bias.copy()))

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        return self.call(torch.ops.voxpress.conv2d, x, residual, CONV2D_VERSION)

    def call(self, op: Any, x: Tensor, residual: Tensor | None, *more: Any) -> Tensor:
        """An op that begins with the arguments of a layer, on the layer's."""
        node = self.node
        y: Tensor = op(
            x,
            self.codes,
            self.palette,
            self.scale,
            self.bias,
            residual,
            list(node.kernel),
            list(node.stride),
            list(node.padding),
            node.groups,
            node.bits,
            node.relu,
            *more,
        )
        return y


class _FastLayer(_PackedLayer):
    def __init__(self, layer: StoredLayer, fast: FastLayer) -> None:
        super().__init__(layer)
        self.fast = fast

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        fast = self.fast
        source, added, target = (one or _UNUSED for one in (fast.input, fast.residual, fast.output))
        return self.call(
            torch.ops.voxpress.conv2d_u8,
            x,
            residual,
            source.scale,
            source.zero,
            added.scale,
            added.zero,
            fast.output is not None,
            target.scale,
            target.zero,
            int(fast.algorithm),
            CONV2D_U8_VERSION,
        )


class StockNetwork(nn.Module):
    """An artifact's program in torch's own fp32 ops, as one would export it without VoxPress.

    Scales are folded into the weights; activations are [1, C, frames, mel], which XNNPACK keeps channels-last inside.
    """

    def __init__(self, artifact: LoadedArtifact) -> None:
        super().__init__()
        self.header = artifact.header
        pooled: set[str] = set()
        layers: dict[str, nn.Module] = {}
        for node in self.header.program:
            if not isinstance(node, Conv2dNode) or node.input in pooled:
                pooled.add(node.name)
            if isinstance(node, Conv2dNode):
                linear = node.input in pooled and node.kernel == (1, 1) and node.padding == (0, 0) and node.groups == 1
                layers[_key(node.name)] = (_StockLinear if linear else _StockConvolution)(artifact.layers[node.name])
        self.layers = nn.ModuleDict(layers)

    def forward(self, features: Tensor) -> Tensor:
        """[N, frames, mel] -> [N, E]."""
        values = {INPUT_NAME: features.unsqueeze(1)}
        for node in self.header.program:
            x = values[node.input]
            if isinstance(node, Conv2dNode):
                y = self.layers[_key(node.name)](x)
                if node.residual is not None:
                    y = y + values[node.residual]
                values[node.name] = y.relu() if node.relu else y
            else:
                values[node.name] = self.stats_pool(x)
        return values[self.header.program[-1].name].flatten(1)

    def stats_pool(self, x: Tensor) -> Tensor:
        """[N, C, frames, mel] -> [N, 2 * mel * C, 1, 1], in the mel-major order of the program's stats_pool."""
        statistics = torch.stack([x.mean(dim=2), (x.var(dim=2, unbiased=True) + STATS_POOL_EPSILON).sqrt()], dim=1)
        return statistics.transpose(2, 3).flatten(1)[:, :, None, None]


class _StockConvolution(nn.Module):
    def __init__(self, layer: StoredLayer) -> None:
        super().__init__()
        node = layer.node
        self.convolution = nn.Conv2d(
            node.in_channels, node.out_channels, node.kernel, node.stride, node.padding, groups=node.groups
        )
        self.convolution.weight = nn.Parameter(_folded_weight(layer).permute(0, 3, 1, 2).contiguous(), False)
        self.convolution.bias = nn.Parameter(torch.from_numpy(layer.bias.copy()), False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return y


class _StockLinear(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__()
        self.register_buffer("weight", _folded_weight(layer).flatten(1))
        self.register_buffer("bias", torch.from_numpy(layer.bias.copy()))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]


def _folded_weight(layer: StoredLayer) -> Tensor:
    return torch.from_numpy(layer.dense_weight() * layer.scale[:, None, None, None])


def _codes(layer: StoredLayer) -> npt.NDArray[np.uint8]:
    """The layer's packed codes, or the bytes of its weights if it has none."""
    return layer.dense_weight().reshape(-1).view(np.uint8) if layer.codes is None else layer.codes


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch does not take dots in a module's name
