"""What an artifact says about itself: the program of a network and the encoding of every layer.

A *program* is the network after batch-norm folding, as a list of nodes in execution order. Two ops are enough for every
network VoxPress knows:

- `conv2d`:     out = act(scale[c] * conv(x, W) + bias[c] + residual), with x [N, frames, mel, C] (logical NHWC).
                A linear layer is the 1x1 case on [N, 1, 1, K].
- `stats_pool`: [N, frames, mel, C] -> [N, 1, 1, 2 * mel * C]; mean over frames, then unbiased standard deviation over
                frames, sqrt(var + 1e-7), each laid out mel-major: index = mel * C + c.

The value named `features` is the network's input, log-mel [N, frames, mel] seen as [N, frames, mel, 1]. The output of
the last node, [N, 1, 1, E], is the embedding [N, E].

Weights are stored in runtime layout [out, kernel_frames, kernel_mel, in / groups]. A layer of 1..8 bits holds packed
`codes` and a `palette` of 2^bits values (W = palette[codes]); a layer of 32 bits holds `weight` itself.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from pipeline.features.spec import FrontEndSpec

INPUT_NAME = "features"
STATS_POOL_EPSILON = 1e-7

# One dimension of a tensor. The cap keeps every product of four dimensions far inside 64 bits, so that a hostile
# header cannot overflow a size computation here or in C++.
Dim = Annotated[int, Field(ge=1, le=1 << 15)]
NonNegative = Annotated[int, Field(ge=0, le=64)]
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,128}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Conv2dNode(_Frozen):
    """One convolution or linear layer; see the module's text for the formula. Pairs are (frames, mel)."""

    op: Literal["conv2d"] = "conv2d"
    name: NodeName
    input: NodeName
    residual: NodeName | None = None
    in_channels: Dim
    out_channels: Dim
    kernel: tuple[Dim, Dim]
    stride: tuple[Dim, Dim] = (1, 1)
    padding: tuple[NonNegative, NonNegative] = (0, 0)
    groups: Dim = 1
    relu: bool = False
    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8, 32]

    @model_validator(mode="after")
    def _divisible(self) -> Conv2dNode:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            channels = f"{self.in_channels} -> {self.out_channels}"
            raise ValueError(f"{channels} channels do not divide into {self.groups} groups")
        return self

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """[out, kernel_frames, kernel_mel, in / groups]."""
        return (self.out_channels, *self.kernel, self.in_channels // self.groups)

    @property
    def weight_count(self) -> int:
        """Number of weights of the layer."""
        return math.prod(self.weight_shape)

    @property
    def code_bytes(self) -> int:
        """Bytes of the packed codes: ceil(weights * bits / 8); for 32 bits, of the float weights."""
        return (self.weight_count * self.bits + 7) // 8


class StatsPoolNode(_Frozen):
    """Temporal statistics pooling; see the module's text for the formula."""

    op: Literal["stats_pool"] = "stats_pool"
    name: NodeName
    input: NodeName


Node = Annotated[Conv2dNode | StatsPoolNode, Field(discriminator="op")]


class Artifact(_Frozen):
    """The JSON half of an artifact. The other half is a safetensors file with the tensors of every conv2d node."""

    format: Literal["voxpress-artifact"] = "voxpress-artifact"
    format_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,128}$")]
    architecture: str
    embedding_dim: PositiveInt
    frontend: FrontEndSpec
    program: tuple[Node, ...]
    created_by: str
    source_sha256: str = Field(description="sha256 of the weights of the pre-trained model this was pressed from")

    @model_validator(mode="after")
    def _well_formed(self) -> Artifact:
        channels = {INPUT_NAME: 1}
        mel = {INPUT_NAME: self.frontend.num_mel_bins}
        for node in self.program:
            if node.name in channels:
                raise ValueError(f"node name {node.name!r} is used twice")
            if node.input not in channels:
                raise ValueError(f"node {node.name!r} reads {node.input!r}, which no earlier node makes")
            if isinstance(node, StatsPoolNode):
                channels[node.name], mel[node.name] = 2 * mel[node.input] * channels[node.input], 1
                continue
            if node.in_channels != channels[node.input]:
                raise ValueError(
                    f"node {node.name!r} takes {node.in_channels} channels, {node.input!r} has {channels[node.input]}"
                )
            channels[node.name] = node.out_channels
            mel[node.name] = conv_out_size(mel[node.input], node.kernel[1], node.stride[1], node.padding[1])
            if mel[node.name] < 1:
                raise ValueError(f"node {node.name!r} leaves no mel bins")
            if node.residual is not None:
                if node.residual not in channels:
                    raise ValueError(f"node {node.name!r} adds {node.residual!r}, which no earlier node makes")
                if (channels[node.residual], mel[node.residual]) != (channels[node.name], mel[node.name]):
                    raise ValueError(f"node {node.name!r} adds {node.residual!r}, whose shape differs")
        if not self.program or channels[self.program[-1].name] != self.embedding_dim:
            raise ValueError(f"the last node does not give {self.embedding_dim} values")
        return self

    @property
    def layers(self) -> tuple[Conv2dNode, ...]:
        """The nodes that hold weights, in execution order."""
        return tuple(node for node in self.program if isinstance(node, Conv2dNode))


def conv_out_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a convolution along one axis: floor((size + 2 padding - kernel) / stride) + 1."""
    return (size + 2 * padding - kernel) // stride + 1
