"""The networks a recipe can name."""

from __future__ import annotations

from torch import nn

from pipeline.errors import InputError
from pipeline.models.resnet import BasicBlock, Bottleneck, ResNet
from pipeline.models.spec import ModelSpec

_RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
    "resnet221": (Bottleneck, (6, 16, 48, 3)),
    "resnet293": (Bottleneck, (10, 20, 64, 3)),
}


def architectures() -> list[str]:
    """Names of all networks."""
    return sorted(_RESNETS, key=lambda name: int(name.removeprefix("resnet")))


def build_model(spec: ModelSpec) -> nn.Module:
    """A freshly initialised network. Raises InputError for a name that is none of ours."""
    if spec.architecture not in _RESNETS:
        raise InputError("model.architecture", expected=f"one of {', '.join(architectures())}", found=spec.architecture)
    block, blocks = _RESNETS[spec.architecture]
    return ResNet(
        block,
        blocks,
        base_channels=spec.base_channels,
        num_mel_bins=spec.num_mel_bins,
        embedding_dim=spec.embedding_dim,
    )
