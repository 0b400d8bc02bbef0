"""What every network of the family shares: how it is lowered to an artifact's program.

A network is a torch module in the key layout of the public wespeaker toolkit, [N, frames, mel] -> [N, E]. Its `lower`
method names the program's nodes once more in plain order; batch-norm becomes the scale and bias of the convolution
before it, weights keep their values (folding a scale into them would break the palette).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.artifact.schema import Conv2dNode, Node, StatsPoolNode

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FloatLayer:
    """One layer before it is encoded: its node (at 32 bits), weight in runtime layout, scale and bias.

    The node's name is the layer's name in the torch module, by which recipes and plans speak of it.
    """

    node: Conv2dNode
    weight: Floats  # [O, kernel_frames, kernel_mel, I / groups]
    scale: Floats  # [O]
    bias: Floats  # [O]


@dataclass
class Lowering:
    """Collects nodes and layers while a network walks through itself in execution order."""

    names: dict[nn.Module, str]
    nodes: list[Node] = field(default_factory=list)
    layers: list[FloatLayer] = field(default_factory=list)

    def conv(
        self,
        x: str,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        *,
        relu: bool,
        residual: str | None = None,
    ) -> str:
        """Add act(norm(conv(x)) + residual) and return its name, which is the convolution's."""
        name = self.names[conv]
        node = Conv2dNode(
            name=name,
            input=x,
            residual=residual,
            in_channels=conv.in_channels,
            out_channels=conv.out_channels,
            # torch's axes are [mel, frames], the program's (frames, mel)
            kernel=(conv.kernel_size[1], conv.kernel_size[0]),
            stride=(conv.stride[1], conv.stride[0]),
            padding=(int(conv.padding[1]), int(conv.padding[0])),
            groups=conv.groups,
            relu=relu,
            bits=32,
        )
        scale, bias = folded_norm(norm)
        weight = conv.weight.detach().permute(0, 3, 2, 1).contiguous().numpy()
        self._add(node, weight, scale, bias)
        return name

    def stats_pool(self, x: str) -> str:
        """Add temporal statistics pooling and return its name."""
        self.nodes.append(StatsPoolNode(name="pool", input=x))
        return "pool"

    def embedding(self, x: str, linear: nn.Linear, *, channels: int) -> str:
        """Add the linear layer after pooling as a 1x1 convolution.

        torch orders the pooled statistics [statistic, channel, mel], the program [statistic, mel, channel].
        """
        name = self.names[linear]
        node = Conv2dNode(
            name=name, input=x, in_channels=linear.in_features, out_channels=linear.out_features, kernel=(1, 1), bits=32
        )
        weight = linear.weight.detach().numpy().reshape(linear.out_features, 2, channels, -1)
        weight = np.ascontiguousarray(weight.transpose(0, 1, 3, 2)).reshape(node.weight_shape)
        bias = np.zeros(linear.out_features, np.float32) if linear.bias is None else linear.bias.detach().numpy()
        self._add(node, weight, np.ones(linear.out_features, np.float32), bias)
        return name

    def _add(self, node: Conv2dNode, weight: Floats, scale: Floats, bias: Floats) -> None:
        self.nodes.append(node)
        self.layers.append(FloatLayer(node, weight, scale.copy(), bias.copy()))


class SpeakerNetwork(Protocol):
    """A torch module that turns features into embeddings and can be lowered."""

    embedding_dim: int

    def __call__(self, features: Tensor) -> Tensor:
        """[N, frames, mel] -> [N, E]."""

    def lower(self, lowering: Lowering) -> None:
        """Add this network's nodes in execution order."""


def folded_norm(norm: nn.BatchNorm2d) -> tuple[Floats, Floats]:
    """Scale and bias [C] that equal a batch-norm in evaluation: s = gamma / sqrt(var + eps), b = beta - mean * s."""
    if norm.running_var is None or norm.running_mean is None:
        raise ValueError("a batch-norm without running statistics cannot be folded")
    scale = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).detach()
    bias = norm.bias.detach().double() - norm.running_mean.double() * scale
    return scale.float().numpy(), bias.float().numpy()


def lower(network: nn.Module) -> Lowering:
    """The program and float layers of a network. The network must be on the CPU and in evaluation mode."""
    lowering = Lowering({module: name for name, module in network.named_modules()})
    with torch.no_grad():
        network.lower(lowering)  # type: ignore[operator]
    return lowering
