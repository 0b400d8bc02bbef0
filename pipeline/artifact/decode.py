"""From an artifact to a network in torch. `decode(artifact)` is the reference that every runtime is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.artifact.schema import INPUT_NAME, STATS_POOL_EPSILON, Conv2dNode
from pipeline.artifact.store import LoadedArtifact, StoredLayer


class ReferenceNetwork(nn.Module):
    """Runs an artifact's program in fp32: features [N, frames, mel] -> embeddings [N, E].

    Written for plainness: every node is one line of torch, weights are palette[codes], nothing is folded or fused.
    """

    def __init__(self, artifact: LoadedArtifact) -> None:
        super().__init__()
        self.header = artifact.header
        self.convolutions = nn.ModuleDict({_key(name): _Convolution(layer) for name, layer in artifact.layers.items()})

    def forward(self, features: Tensor) -> Tensor:
        """[N, frames, mel] -> [N, E]."""
        return self.values(features)[self.header.program[-1].name].flatten(1)

    def values(self, features: Tensor) -> dict[str, Tensor]:
        """Every value of the program by name, [N, C, frames, mel] each, from features [N, frames, mel]."""
        # Inside, torch's own layout [N, C, frames, mel]; the program's logical layout is [N, frames, mel, C].
        values = {INPUT_NAME: features.unsqueeze(1)}
        for node in self.header.program:
            x = values[node.input]
            if isinstance(node, Conv2dNode):
                residual = None if node.residual is None else values[node.residual]
                values[node.name] = self.convolutions[_key(node.name)](x, residual)
            else:
                values[node.name] = stats_pool(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return values


def stats_pool(x: Tensor) -> Tensor:
    """[N, frames, mel, C] -> [N, 1, 1, 2 * mel * C]: mean over frames, then sqrt(unbiased variance + 1e-7)."""
    if x.shape[1] > 1:
        deviation = (x.var(dim=1, unbiased=True) + STATS_POOL_EPSILON).sqrt()
    else:
        deviation = torch.full_like(x[:, 0], STATS_POOL_EPSILON**0.5)
    return torch.cat([x.mean(dim=1).flatten(1), deviation.flatten(1)], dim=1)[:, None, None, :]


def decode(artifact: LoadedArtifact) -> ReferenceNetwork:
    """The reference network of an artifact, in evaluation mode."""
    return ReferenceNetwork(artifact).eval().requires_grad_(False)


class _Convolution(nn.Module):
    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: StoredLayer) -> None:
        super().__init__()
        self.node = layer.node
        # [O, frames, mel, I] -> torch's [O, I, frames, mel]
        self.register_buffer("weight", torch.from_numpy(layer.dense_weight().copy()).permute(0, 3, 1, 2).contiguous())
        self.register_buffer("scale", torch.from_numpy(layer.scale.copy()).reshape(1, -1, 1, 1))
        self.register_buffer("bias", torch.from_numpy(layer.bias.copy()).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        node = self.node
        y = functional.conv2d(x, self.weight, stride=node.stride, padding=node.padding, groups=node.groups)
        y = y * self.scale + self.bias
        if residual is not None:
            y = y + residual
        return y.relu() if node.relu else y


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch does not take dots in a module's name
