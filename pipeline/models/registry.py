"""The networks a recipe can name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.errors import InputError
from pipeline.models.dfresnet import GEMINI, OVERLAPPING, TILING, DfResNet
from pipeline.models.network import SpeakerNetwork
from pipeline.models.resnet import BasicBlock, Bottleneck, ResNet
from pipeline.models.spec import ModelSpec

# By family, from small to large. A DF-ResNet's number counts its layers, a Gemini DF-ResNet's its downsampling too.
_NETWORKS: dict[str, Callable[..., SpeakerNetwork]] = {
    "resnet10": partial(ResNet, BasicBlock, (1, 1, 1, 1)),
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    "resnet221": partial(ResNet, Bottleneck, (6, 16, 48, 3)),
    "resnet293": partial(ResNet, Bottleneck, (10, 20, 64, 3)),
    "dfresnet56": partial(DfResNet, (3, 3, 9, 3), TILING),
    "dfresnet110": partial(DfResNet, (3, 3, 27, 3), TILING),
    "dfresnet179": partial(DfResNet, (3, 8, 45, 3), OVERLAPPING),
    "dfresnet233": partial(DfResNet, (3, 8, 63, 3), OVERLAPPING),
    "gemini-dfresnet60": partial(DfResNet, (3, 3, 9, 3), GEMINI),
    "gemini-dfresnet114": partial(DfResNet, (3, 3, 27, 3), GEMINI),
    "gemini-dfresnet183": partial(DfResNet, (3, 8, 45, 3), GEMINI),
    "gemini-dfresnet237": partial(DfResNet, (3, 8, 63, 3), GEMINI),
}


def architectures() -> list[str]:
    """Names of all networks, by family, from small to large."""
    return list(_NETWORKS)


def build_model(spec: ModelSpec) -> SpeakerNetwork:
    """A freshly initialised network. Raises InputError for a name that is none of ours."""
    if spec.architecture not in _NETWORKS:
        raise InputError("model.architecture", expected=f"one of {', '.join(architectures())}", found=spec.architecture)
    return _NETWORKS[spec.architecture](
        base_channels=spec.base_channels,
        num_mel_bins=spec.num_mel_bins,
        embedding_dim=spec.embedding_dim,
        embedding_layers=spec.embedding_layers,
    )
