"""What every network of the family shares: pooling, the embedding layers, and how it is lowered to a program.

A network is a torch module in the key layout of the public wespeaker toolkit, [N, frames, mel] -> [N, E]. Its `lower`
method names the program's nodes once more in plain order; batch-norm becomes the scale and bias of the convolution
before it, weights keep their values (folding a scale into them would break the palette).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.artifact.schema import INPUT_NAME, STATS_POOL_EPSILON, Conv2dNode, Node, StatsPoolNode

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

    def embedding(self, x: str, linear: nn.Linear, *, channels: int, norm: nn.BatchNorm1d | None = None) -> str:
        """Add the linear layer after pooling as a 1x1 convolution and return its name.

        torch orders the pooled statistics [statistic, channel, mel], the program [statistic, mel, channel].

        With `norm`, the batch-norm without affine parameters that follows relu(linear(x)), the node gives s * relu(h),
        written s * relu(W x + b) = relu(s * (W x) + s * b), which holds since s = 1 / sqrt(var + eps) > 0. The norm's
        shift -mean * s is left to the next layer: `embedding_after_norm`.
        """
        weight = linear.weight.detach().numpy().reshape(linear.out_features, 2, channels, -1)
        weight = np.ascontiguousarray(weight.transpose(0, 1, 3, 2))
        scale, bias = np.ones(linear.out_features, np.float32), linear.bias.detach().numpy()
        if norm is not None:
            scale = folded_norm(norm)[0]
            bias = scale * bias
        return self._linear(x, linear, weight, scale, bias, relu=norm is not None)

    def embedding_after_norm(self, x: str, linear: nn.Linear, norm: nn.BatchNorm1d) -> str:
        """Add the second embedding layer on x = s * relu(h) and return its name.

        W (x - mean * s) + b = W x + (b - W (mean * s)): the norm's shift goes through W into the bias.
        """
        shift = torch.from_numpy(folded_norm(norm)[1]).double()
        bias = linear.bias.double() + linear.weight.double() @ shift
        ones = np.ones(linear.out_features, np.float32)
        return self._linear(x, linear, linear.weight.detach().numpy(), ones, bias.float().numpy(), relu=False)

    def _linear(self, x: str, linear: nn.Linear, weight: Floats, scale: Floats, bias: Floats, *, relu: bool) -> str:
        node = Conv2dNode(
            name=self.names[linear],
            input=x,
            in_channels=linear.in_features,
            out_channels=linear.out_features,
            kernel=(1, 1),
            relu=relu,
            bits=32,
        )
        self._add(node, weight.reshape(node.weight_shape), scale, bias)
        return node.name

    def _add(self, node: Conv2dNode, weight: Floats, scale: Floats, bias: Floats) -> None:
        self.nodes.append(node)
        self.layers.append(FloatLayer(node, weight, scale.copy(), bias.copy()))


class SpeakerNetwork(nn.Module, ABC):
    """Frame-level network, temporal statistics pooling, one or two embedding layers: [N, frames, mel] -> [N, E].

    With one embedding layer the embedding is seg_1(statistics), with two seg_2(seg_bn_1(relu(seg_1(statistics)))),
    where the batch-norm has no affine parameters. Inside, tensors are [N, C, mel, frames], as in public checkpoints.
    """

    embedding_dim: int
    pooled_channels: int

    def _add_embedding(self, channels: int, mel: int, embedding_dim: int, layers: int) -> None:
        """Make the layers after pooling, for `channels` channels and `mel` mel bins."""
        self.embedding_dim, self.pooled_channels = embedding_dim, channels
        self.seg_1 = nn.Linear(2 * channels * mel, embedding_dim)
        if layers == 2:
            self.seg_bn_1 = nn.BatchNorm1d(embedding_dim, affine=False)
            self.seg_2 = nn.Linear(embedding_dim, embedding_dim)
        self.has_second_embedding = layers == 2

    @abstractmethod
    def frame_level(self, x: Tensor) -> Tensor:
        """[N, 1, mel, frames] -> [N, C, mel', frames'], all that comes before pooling."""

    @abstractmethod
    def lower_frame_level(self, x: str, lowering: Lowering) -> str:
        """Add the nodes of `frame_level` on the value `x`, in execution order, and return the last one's name."""

    def forward(self, features: Tensor) -> Tensor:
        """[N, frames, mel] -> [N, E]."""
        x = self.frame_level(features.transpose(1, 2).unsqueeze(1))
        deviation = (x.var(dim=-1, unbiased=True) + STATS_POOL_EPSILON).sqrt()
        embedding: Tensor = self.seg_1(torch.cat([x.mean(dim=-1).flatten(1), deviation.flatten(1)], dim=1))
        if self.has_second_embedding:
            embedding = self.seg_2(self.seg_bn_1(embedding.relu()))
        return embedding

    def lower(self, lowering: Lowering) -> None:
        """Add the network's nodes in execution order."""
        pooled = lowering.stats_pool(self.lower_frame_level(INPUT_NAME, lowering))
        if not self.has_second_embedding:
            lowering.embedding(pooled, self.seg_1, channels=self.pooled_channels)
            return
        hidden = lowering.embedding(pooled, self.seg_1, channels=self.pooled_channels, norm=self.seg_bn_1)
        lowering.embedding_after_norm(hidden, self.seg_2, self.seg_bn_1)


def folded_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Floats, Floats]:
    """Scale and bias [C] that equal a batch-norm in evaluation: s = gamma / sqrt(var + eps), b = beta - mean * s.

    Without affine parameters gamma is 1 and beta is 0.
    """
    if norm.running_var is None or norm.running_mean is None:
        raise ValueError("a batch-norm without running statistics cannot be folded")
    scale = 1.0 / (norm.running_var.double() + norm.eps).sqrt()
    if norm.affine:
        scale = norm.weight.detach().double() * scale
    bias = -norm.running_mean.double() * scale
    if norm.affine:
        bias = bias + norm.bias.detach().double()
    return scale.float().numpy(), bias.float().numpy()


def lower(network: nn.Module) -> Lowering:
    """The program and float layers of a network. The network must be on the CPU and in evaluation mode."""
    lowering = Lowering({module: name for name, module in network.named_modules()})
    with torch.no_grad():
        network.lower(lowering)  # type: ignore[operator]
    return lowering
