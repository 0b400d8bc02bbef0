"""Bytes and multiplications of a program, layer by layer, without its weights."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.artifact.bitpack import packed_bytes
from pipeline.artifact.schema import INPUT_NAME, Conv2dNode, Node, StatsPoolNode, conv_out_size

_FLOAT_BYTES = 4


def layer_bytes(node: Conv2dNode, bits: int) -> int:
    """Bytes of a layer's tensors in an artifact: packed codes, 2^bits palette entries, and scale and bias [O].

    At 32 bits there is no palette: float weights, scale and bias.
    """
    palette = 0 if bits == 32 else _FLOAT_BYTES << bits
    return packed_bytes(node.weight_count, bits) + palette + 2 * _FLOAT_BYTES * node.out_channels


def program_macs(nodes: Iterable[Node], *, frames: int, num_mel_bins: int) -> int:
    """Multiply-accumulates of a program, summed over its layers."""
    return sum(layer_macs(nodes, frames=frames, num_mel_bins=num_mel_bins).values())


def layer_macs(nodes: Iterable[Node], *, frames: int, num_mel_bins: int) -> dict[str, int]:
    """Multiply-accumulates of each layer of a program by name: output positions times weights."""
    sizes = {INPUT_NAME: (frames, num_mel_bins)}
    macs = {}
    for node in nodes:
        if isinstance(node, StatsPoolNode):
            sizes[node.name] = (1, 1)
            continue
        axes = zip(sizes[node.input], node.kernel, node.stride, node.padding, strict=True)
        rows, columns = (conv_out_size(size, kernel, stride, padding) for size, kernel, stride, padding in axes)
        sizes[node.name] = (rows, columns)
        macs[node.name] = rows * columns * node.weight_count
    return macs
