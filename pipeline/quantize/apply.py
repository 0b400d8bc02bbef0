"""The only place where quantization meets modules: palettes on layers, and a network pressed into an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.artifact.bitpack import pack_codes
from pipeline.artifact.schema import Artifact
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.network import FloatLayer, lower
from pipeline.quantize.binarize import sign_palette, static_palette
from pipeline.quantize.kmeans import encode, fit_palette

Rule = Literal["kmeans", "static", "sign"]


class Palettized(nn.Module):
    """Parametrization of a weight: Q(w) = nearest palette entry; straight-through, dL/dw = dL/dQ(w).

    The rule says where the palette comes from and how it follows the weights: "kmeans" (any width; at 1 bit the
    adaptive binary quantizer), "static" (1 bit, +-mean|w|) or "sign" (1 bit, +-1, never moves). Until it is active the
    weight stays as it is; whether it is goes with the palette into checkpoints.
    """

    palette: Tensor
    active: Tensor

    def __init__(self, weight: Tensor, bits: int, rule: Rule = "kmeans", *, active: bool = True) -> None:
        super().__init__()
        if rule != "kmeans" and bits != 1:
            raise InputError(f"palette rule {rule}", expected="1 bit", found=f"{bits} bits")
        self.bits, self.rule = bits, rule
        self.register_buffer("palette", torch.from_numpy(self._fitted(weight.detach().cpu().numpy())))
        self.register_buffer("active", torch.tensor(active))

    def _fitted(self, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.rule == "static":
            return static_palette(weight)
        return sign_palette() if self.rule == "sign" else fit_palette(weight, self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        """palette[nearest(weight)], with the gradient of the identity; `weight` itself until it is active."""
        if not self.active:
            return weight
        midpoints = (self.palette[1:] + self.palette[:-1]) / 2
        return _StraightThrough.apply(weight, self.palette[torch.bucketize(weight.detach(), midpoints)])  # type: ignore[no-any-return, no-untyped-call]

    def activate(self, weight: Tensor) -> None:
        """Begin to quantize, with a palette fitted to what the latent weights are by now."""
        self.palette.copy_(torch.from_numpy(self._fitted(weight.detach().cpu().numpy())))
        self.active.fill_(True)

    def follow(self, weight: Tensor) -> None:
        """Move the palette after the latent weights: one warm-started Lloyd step, or a new static scale."""
        latent = weight.detach().cpu().numpy()
        if self.rule == "kmeans":
            moved = fit_palette(latent, self.bits, start=self.palette.cpu().numpy(), iterations=1)
        else:
            moved = self._fitted(latent)
        self.palette.copy_(torch.from_numpy(moved))


class _StraightThrough(torch.autograd.Function):
    """Gives `quantized` forward, exactly, and hands its gradient to `weight`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantized: Tensor) -> Tensor:
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def weight_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every convolution and linear layer of a network by its name; these are what a palette can be put on."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def attach_palettes(network: nn.Module, bits: Mapping[str, int], rule: Rule = "kmeans", *, active: bool = True) -> None:
    """Put a palette of `bits[name]` bits on each named layer; the others stay as they are.

    Palettes that are not active leave their weights in fp32 until `activate_palettes`.

    Raises InputError for a name that is no layer of the network.
    """
    layers = weight_layers(network)
    for name, width in bits.items():
        if name not in layers:
            raise InputError(f"layer {name}", expected=f"one of {', '.join(layers)}", found="no such layer")
        layer = layers[name]
        weight = layer.get_parameter("weight")
        parametrize.register_parametrization(layer, "weight", Palettized(weight, width, rule, active=active))


def activate_palettes(network: nn.Module, names: Iterable[str]) -> None:
    """Let the palettes of the named layers begin to quantize."""
    layers = weight_layers(network)
    for name in names:
        (palettized,) = layers[name].parametrizations.weight  # type: ignore[union-attr, misc]
        palettized.activate(layers[name].parametrizations.weight.original)  # type: ignore[union-attr]


def follow_weights(network: nn.Module) -> None:
    """Let every active palette of the network take one step after its latent weights."""
    for layer in weight_layers(network).values():
        palettized = _palettized(layer)
        if palettized is not None:
            palettized.follow(layer.parametrizations.weight.original)  # type: ignore[union-attr, arg-type]


def press(
    network: nn.Module,
    *,
    name: str,
    architecture: str,
    frontend: FrontEndSpec,
    created_by: str,
    source_sha256: str,
) -> LoadedArtifact:
    """The artifact of a network: codes and palettes of its palettized layers, float weights of the others."""
    network = network.cpu().eval()
    modules = dict(network.named_modules())
    lowering = lower(network)
    layers = {layer.node.name: _encode_layer(layer, _palettized(modules[layer.node.name])) for layer in lowering.layers}
    nodes = tuple(layers[node.name].node if node.name in layers else node for node in lowering.nodes)
    header = Artifact(
        name=name,
        architecture=architecture,
        embedding_dim=lowering.layers[-1].node.out_channels,
        frontend=frontend,
        program=nodes,
        created_by=created_by,
        source_sha256=source_sha256,
    )
    return LoadedArtifact(header, layers)


def _palettized(layer: nn.Module) -> Palettized | None:
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    (parametrization,) = layer.parametrizations.weight  # type: ignore[union-attr, misc]
    return parametrization if isinstance(parametrization, Palettized) and parametrization.active else None


def _encode_layer(layer: FloatLayer, palettized: Palettized | None) -> StoredLayer:
    if palettized is None:
        return StoredLayer(layer.node, layer.scale, layer.bias, weight=np.ascontiguousarray(layer.weight))
    palette = palettized.palette.cpu().numpy()
    node = layer.node.model_copy(update={"bits": palettized.bits})
    # layer.weight holds palette values already (the parametrization gives them), so the nearest entry is exact.
    codes = encode(layer.weight, palette)
    return StoredLayer(node, layer.scale, layer.bias, codes=pack_codes(codes, palettized.bits), palette=palette)
