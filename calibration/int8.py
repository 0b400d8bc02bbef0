"""Palettes of multiples of one step, -127..127 of it, as integer kernels want them, chosen by what they do to outputs.

Rounding every palette value to its nearest multiple shifts many weights in the same direction, and inputs that are all
positive add those shifts up. So the multiples are chosen together, for the least error of a layer's outputs. With
d[k] the change of palette value k and x an input window,

    E |sum_w d[code(w)] x(w)|^2, summed over output channels  =  d^T A d,
    A = sum_o m_o m_o^T + diag V + r (sum_o v_o n_o n_o^T - diag V)

where m_o[k] sums the means of the inputs whose weight has code k, V[k] their variances over all outputs, n_o[k] counts
the weights of code k, and r is how alike neighbouring values of one channel are: 1/2 where an output reads a single
channel, of variance v_o, as in the stem and in depthwise layers, and 0 where it reads many. Steps around the largest
value / 127 are tried, and for each the multiples are moved one by one as long as the error falls (coordinate descent).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.artifact.bitpack import unpack_codes
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact, StoredLayer

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LARGEST = 127  # of an int8 weight, as the kernels round

_STEPS = 21  # tried, from LARGEST - 0.49 to LARGEST + 0.49 of them to the largest value
_PASSES = 6  # over the palette, at most
_ALIKE = 0.5  # r


@dataclass(frozen=True)
class ChannelMoments:
    """Mean and variance of every channel of a tensor, over frames and mel bins: [C] each."""

    mean: Doubles
    variance: Doubles


def with_int8_palettes(artifact: LoadedArtifact, utterances: Iterable[Floats]) -> LoadedArtifact:
    """The artifact with palettes of multiples of one step of each layer, of the same codes.

    Layers of 1 bit, which two integers and an offset give exactly, and of 32 bits stay as they are. utterances:
    features [frames, mel] to measure the layers' inputs on.
    """
    moments = channel_moments(artifact, utterances)
    layers = {
        name: layer
        if layer.palette is None or layer.node.bits == 1
        else dataclasses.replace(layer, palette=int8_palette(layer, moments[layer.node.input]))
        for name, layer in artifact.layers.items()
    }
    return LoadedArtifact(artifact.header, layers)


def channel_moments(artifact: LoadedArtifact, utterances: Iterable[Floats]) -> Mapping[str, ChannelMoments]:
    """Moments of every value of an artifact's program, by name; each utterance counts the same."""
    network = decode(artifact)
    sums: dict[str, list[Doubles]] = {}
    for features in utterances:
        with torch.inference_mode():
            values = network.values(torch.from_numpy(features)[None])
        for name, value in values.items():
            x = value[0].double().flatten(1)
            sums.setdefault(name, []).append(torch.stack([x.mean(dim=1), x.square().mean(dim=1)]).numpy())
    found = {name: np.mean(parts, axis=0) for name, parts in sums.items()}
    return {name: ChannelMoments(mean, np.maximum(square - mean**2, 0.0)) for name, (mean, square) in found.items()}


def int8_palette(layer: StoredLayer, inputs: ChannelMoments) -> Floats:
    """The layer's palette in multiples k of a step, |k| <= 127, the largest at 127: float32 [2^bits]."""
    if layer.palette is None or layer.codes is None:
        raise ValueError(f"layer {layer.node.name} has no palette")
    palette = layer.palette.astype(np.float64)
    largest = int(np.abs(palette).argmax())
    if palette[largest] == 0:
        return layer.palette
    a = _error_form(layer, layer.codes, inputs)
    best, least = palette, np.inf
    for steps in np.linspace(LARGEST - 0.49, LARGEST + 0.49, _STEPS):
        step = abs(palette[largest]) / steps
        change = step * np.clip(np.rint(palette / step), -LARGEST, LARGEST) - palette
        error = _descend(change, palette, a, step, largest)
        if error < least:
            best, least = palette + change, error
    return best.astype(np.float32)


def _descend(change: Doubles, palette: Doubles, a: Doubles, step: float, fixed: int) -> float:
    """Move changes by single steps while change^T A change falls, in place; returns it. `fixed` stays."""
    slope = a @ change
    limit = (LARGEST + 0.25) * step
    for _ in range(_PASSES):
        moved = False
        for k in range(len(change)):
            for move in (step, -step):
                fits = k != fixed and abs(palette[k] + change[k] + move) < limit
                if fits and 2 * move * slope[k] + move * move * a[k, k] < 0:
                    change[k] += move
                    slope += a[:, k] * move
                    moved = True
                    break
        if not moved:
            break
    return float(change @ a @ change)


def _error_form(layer: StoredLayer, packed: npt.NDArray[np.uint8], inputs: ChannelMoments) -> Doubles:
    """A [2^bits, 2^bits] of the module's text."""
    node, count = layer.node, 1 << layer.node.bits
    depth, outputs = node.in_channels // node.groups, node.out_channels
    codes = unpack_codes(packed, node.bits, node.weight_count).reshape(outputs, -1, depth).astype(np.int64)
    places = (codes + count * np.arange(outputs)[:, None, None]).reshape(-1)
    first = np.arange(outputs) // (outputs // node.groups) * depth
    channels = np.broadcast_to((first[:, None] + np.arange(depth))[:, None, :], codes.shape).reshape(-1)

    def summed(values: Doubles) -> Doubles:
        """Over the weights of each output and code: [outputs, 2^bits]."""
        sums: Doubles = np.bincount(places, values[channels], minlength=outputs * count)
        return sums.reshape(outputs, count)

    m = summed(inputs.mean)
    variances = summed(inputs.variance)
    a = m.T @ m + np.diag(variances.sum(axis=0))
    if depth == 1:
        n = summed(np.ones(node.in_channels))
        a += _ALIKE * ((n.T * inputs.variance[first]) @ n - np.diag(variances.sum(axis=0)))
    return a
