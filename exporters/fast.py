"""Mode `fast` of a program: which activations are bytes, what they stand for, and by which algorithm each layer runs.

Between two convolutions activations are u8, with the scale and zero of `activations.json`. The features, what
statistics pooling reads and writes, and all after it stay fp32: there are few of those numbers, and the embedding is
made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from calibration.ranges import ActivationRanges
from pipeline.artifact.schema import Artifact, Conv2dNode
from pipeline.errors import InputError


class Algorithm(IntEnum):
    """How a layer's sums are computed, as model files write it. Winograd: 3x3, stride 1, no groups, u8 input only."""

    AUTO = 0
    DIRECT = 1
    WINOGRAD2 = 2  # F(2x2, 3x3)
    WINOGRAD4 = 3  # F(4x4, 3x3)


@dataclass(frozen=True)
class Quantization:
    """The real numbers of a u8 tensor: scale * (q - zero)."""

    scale: float
    zero: int


@dataclass(frozen=True)
class FastLayer:
    """What mode `fast` adds to a layer. None where a tensor is fp32 (or, of the residual, absent)."""

    input: Quantization | None
    residual: Quantization | None
    output: Quantization | None
    algorithm: Algorithm


@dataclass(frozen=True)
class FastProgram:
    """The u8 activations of a program by name, and the algorithms of layers that do not leave theirs to the kernels."""

    ranges: ActivationRanges
    bytes_of: Mapping[str, Quantization]
    algorithms: Mapping[str, Algorithm] = field(default_factory=dict)

    def layer(self, node: Conv2dNode) -> FastLayer:
        """What a layer of the program reads and writes."""
        return FastLayer(
            input=self.bytes_of.get(node.input),
            residual=None if node.residual is None else self.bytes_of.get(node.residual),
            output=self.bytes_of.get(node.name),
            algorithm=self.algorithms.get(node.name, Algorithm.AUTO),
        )

    def may_use_winograd(self, node: Conv2dNode) -> bool:
        """Whether a layer can be run by Winograd's algorithm."""
        plain = (node.kernel, node.stride, node.groups) == ((3, 3), (1, 1), 1)
        return plain and node.input in self.bytes_of


def u8_values(header: Artifact) -> frozenset[str]:
    """Names of the values that are u8 in mode `fast`: those that a convolution writes and only convolutions read.

    After the first statistics pooling there are none.
    """
    pooled: set[str] = set()
    chosen: set[str] = set()
    for node in header.program:
        if not isinstance(node, Conv2dNode):
            pooled.add(node.name)
            chosen.discard(node.input)
        elif node.input in pooled:
            pooled.add(node.name)
        else:
            chosen.add(node.name)
    return frozenset(chosen - {header.program[-1].name})


def fast_program(
    header: Artifact, ranges: ActivationRanges, algorithms: Mapping[str, Algorithm] | None = None
) -> FastProgram:
    """Mode `fast` of a program. Raises InputError if `ranges` lack one of its tensors."""
    bytes_of = {}
    for name in sorted(u8_values(header)):
        if name not in ranges.tensors:
            raise InputError(f"activation ranges of {ranges.artifact}", expected=f"a range of {name}", found="none")
        measured = ranges.tensors[name]
        bytes_of[name] = Quantization(measured.scale, measured.zero)
    return FastProgram(ranges, bytes_of, dict(algorithms or {}))
