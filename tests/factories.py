"""Small things that many tests build: artifacts with random weights, their activation ranges, something like speech."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.activations import measure_ranges
from calibration.ranges import ActivationRanges, RangeChoice
from exporters.fast import FastProgram, fast_program
from pipeline.artifact.bitpack import pack_codes
from pipeline.artifact.schema import Artifact, Conv2dNode, StatsPoolNode
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.features.spec import FrontEndSpec


def random_layer(node: Conv2dNode, rng: np.random.Generator) -> StoredLayer:
    """Random codes, palette, scale and bias for a node, scaled so that activations stay near one."""
    fan_in = node.kernel[0] * node.kernel[1] * node.in_channels // node.groups
    scale = rng.uniform(0.5, 1.5, node.out_channels).astype(np.float32)
    bias = rng.normal(0, 0.1, node.out_channels).astype(np.float32)
    if node.bits == 32:
        weight = (rng.normal(size=node.weight_shape) / np.sqrt(fan_in)).astype(np.float32)
        return StoredLayer(node, scale, bias, weight=weight)
    palette = np.sort(rng.normal(size=1 << node.bits)).astype(np.float32) / np.float32(np.sqrt(fan_in))
    codes = rng.integers(0, 1 << node.bits, node.weight_count).astype(np.uint8)
    return StoredLayer(node, scale, bias, codes=pack_codes(codes, node.bits), palette=palette)


def tiny_artifact(
    bits: int = 4, seed: int = 0, *, depthwise: bool = False, channels: tuple[int, int] = (5, 9)
) -> LoadedArtifact:
    """A network of a few layers with every feature of the op family: stride, residual, 1x1 shortcut, pooling, linear.

    Odd channel counts on purpose, `channels` of its two blocks. `depthwise` makes the second convolution depthwise.
    """
    few, more = channels
    rng = np.random.default_rng(seed)
    b: Any = bits
    conv = {"kernel": (3, 3), "padding": (1, 1), "bits": b, "relu": True}
    program = (
        Conv2dNode(name="conv1", input="features", in_channels=1, out_channels=few, **conv),
        Conv2dNode(
            name="block.conv1",
            input="conv1",
            in_channels=few,
            out_channels=few,
            groups=few if depthwise else 1,
            **conv,
        ),
        Conv2dNode(
            name="block.conv2", input="block.conv1", residual="conv1", in_channels=few, out_channels=few, **conv
        ),
        Conv2dNode(name="down.conv1", input="block.conv2", in_channels=few, out_channels=more, stride=(2, 2), **conv),
        Conv2dNode(
            name="down.shortcut",
            input="block.conv2",
            in_channels=few,
            out_channels=more,
            kernel=(1, 1),
            stride=(2, 2),
            bits=b,
        ),
        Conv2dNode(
            name="down.conv2",
            input="down.conv1",
            residual="down.shortcut",
            in_channels=more,
            out_channels=more,
            **conv,
        ),
        StatsPoolNode(name="pool", input="down.conv2"),
        Conv2dNode(name="embedding", input="pool", in_channels=2 * 40 * more, out_channels=16, kernel=(1, 1), bits=b),
    )
    header = Artifact(
        name=f"tiny-{bits}bit" if bits < 32 else "tiny-fp32",
        architecture="tiny",
        embedding_dim=16,
        frontend=FrontEndSpec(),
        program=program,
        created_by="tests",
        source_sha256="0" * 64,
    )
    return LoadedArtifact(header, {node.name: random_layer(node, rng) for node in header.layers})


def speech_like(seconds: float, sample_rate_hz: int = 16000, seed: int = 0) -> np.ndarray:
    """Float32 samples in [-1, 1): a gliding pulse train with pauses, an offset, a little noise, rounded to 16 bits."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    pitch = 2 * np.pi * np.cumsum(110 + 30 * np.sin(4 * time + seed)) / sample_rate_hz
    voice = sum(np.sin(k * pitch) / k for k in range(1, 25)) * np.clip(np.sin(9 * time), 0, 1)
    samples = 0.15 * voice + 0.01 + rng.normal(0, 2e-3, len(time))
    return (np.round(np.clip(samples, -1, 0.9999) * 32768) / 32768).astype(np.float32)


def noise_utterances(count: int = 6, frames: int = 100, mel: int = 80) -> dict[str, npt.NDArray[np.float32]]:
    """Features [frames + k, mel] of seeded noise by name."""
    rng = np.random.default_rng(7)
    return {f"u{k}": rng.normal(0.0, 2.0, (frames + k, mel)).astype(np.float32) for k in range(count)}


def noise_ranges(artifact: LoadedArtifact, choice: RangeChoice | None = None) -> ActivationRanges:
    """Activation ranges of an artifact on noise."""
    mel = artifact.header.frontend.num_mel_bins
    return measure_ranges(artifact, noise_utterances(mel=mel).items(), choice or RangeChoice(method="min-max"))


def noise_program(artifact: LoadedArtifact) -> FastProgram:
    """Mode fast of an artifact, with ranges measured on noise."""
    return fast_program(artifact.header, noise_ranges(artifact))


def code_places(artifact: LoadedArtifact, data: bytes, alignment: int) -> set[int]:
    """Where the layers' packed codes, of 64 bytes and more, lie in a model file, modulo an alignment."""
    codes = [layer.codes for layer in artifact.layers.values() if layer.codes is not None and layer.codes.size >= 64]
    places = [data.find(one.tobytes()) for one in codes]
    assert places, "no layer has as many codes"
    assert min(places) >= 0, "codes of a layer are not in the file"
    return {place % alignment for place in places}
