"""How large a network is: parameters, multiplications, and the bytes of its artifact at every width."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from pipeline.artifact.schema import Conv2dNode, Node
from pipeline.artifact.size import layer_bytes, program_macs
from pipeline.models.network import lower
from pipeline.models.registry import architectures, build_model
from pipeline.models.spec import ModelSpec

WIDTHS = (8, 7, 6, 5, 4, 3, 2, 1)
FRAMES = 200


class NetworkSize(BaseModel):
    """What a network takes."""

    model_config = ConfigDict(frozen=True)

    spec: ModelSpec
    parameters: int
    frames: int
    macs: int  # multiply-accumulates of all convolutions and linear layers for `frames` frames
    fp32_bytes: int
    palette_bytes: dict[int, int]  # width in bits -> bytes, with that width in every layer


def network_size(spec: ModelSpec, *, frames: int = FRAMES) -> NetworkSize:
    """Sizes of a network, from its lowered program; weights are not drawn."""
    network, nodes = _undrawn(spec)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    layers = [node for node in nodes if isinstance(node, Conv2dNode)]
    return NetworkSize(
        spec=spec,
        parameters=parameters,
        frames=frames,
        macs=program_macs(nodes, frames=frames, num_mel_bins=spec.num_mel_bins),
        fp32_bytes=sum(layer_bytes(node, 32) for node in layers),
        palette_bytes={bits: sum(layer_bytes(node, bits) for node in layers) for bits in WIDTHS},
    )


def layer_nodes(spec: ModelSpec) -> list[Conv2dNode]:
    """The layers of a network in execution order; weights are not drawn."""
    return [node for node in _undrawn(spec)[1] if isinstance(node, Conv2dNode)]


def _undrawn(spec: ModelSpec) -> tuple[nn.Module, list[Node]]:
    """A network on the CPU with whatever is in its memory for weights, and its program."""
    with torch.device("meta"):
        network = build_model(spec)
    # Lowering copies weights, whatever is in them; on the meta device there is nothing to copy.
    network = network.to_empty(device="cpu").eval()
    return network, lower(network).nodes


def network_sizes() -> list[NetworkSize]:
    """Sizes of every network at its published width."""
    return [network_size(ModelSpec(architecture=name)) for name in architectures()]


def sizes_json(sizes: list[NetworkSize]) -> str:
    """The sizes as a JSON list."""
    return TypeAdapter(list[NetworkSize]).dump_json(sizes, indent=1).decode()


def sizes_table(sizes: list[NetworkSize]) -> Table:
    """The sizes as a table, one network a row; multiplications in millions."""
    title = f"MACs for {FRAMES} frames of 80 mel bins; bytes of the artifact's tensors in fp32 and at 8..1 bits"
    table = Table(title=title, box=SIMPLE, padding=(0, 1), pad_edge=False)
    table.add_column("network", no_wrap=True)
    for heading in ("parameters", "10^6 MACs", "fp32", *(f"{bits}" for bits in WIDTHS)):
        table.add_column(heading, justify="right", no_wrap=True)
    for size in sizes:
        table.add_row(
            size.spec.name,
            str(size.parameters),
            f"{size.macs / 1e6:.0f}",
            str(size.fp32_bytes),
            *(str(size.palette_bytes[bits]) for bits in WIDTHS),
        )
    return table
