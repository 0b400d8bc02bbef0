"""Plans: the width of every layer, as a file that can be read and edited by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from calibration.allocate import LayerChoices, allocate_bits
from pipeline.artifact.schema import Conv2dNode
from pipeline.artifact.size import layer_bytes
from pipeline.errors import InputError
from pipeline.files import read_json, write_atomically
from pipeline.models.network import FloatLayer
from pipeline.quantize.kmeans import decode, encode, fit_palette

PLAN_FILE = "plan.json"
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8)

Width = Annotated[int, Field(ge=1, le=8)]


class Plan(BaseModel):
    """The width of every layer, under the layer's name in the network. Only `layers` is read back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["voxpress-plan"] = "voxpress-plan"
    layers: dict[str, Width]
    budget_bytes: NonNegativeInt | None = None  # None: made by hand
    bytes: NonNegativeInt | None = None  # of the artifact's tensors under this plan
    average_bits: float | None = None  # bits of code per weight


def rounding_errors(layers: Iterable[FloatLayer]) -> dict[str, dict[int, float]]:
    """||Q_b(W) - W||^2 of every layer at every width, each with its k-means palette."""
    errors: dict[str, dict[int, float]] = {}
    for layer in layers:
        errors[layer.node.name] = {}
        for bits in WIDTHS:
            palette = fit_palette(layer.weight, bits)
            difference = decode(encode(layer.weight, palette), palette).astype("f8") - layer.weight
            errors[layer.node.name][bits] = float((difference**2).sum())
    return errors


def uniform_bytes(nodes: Iterable[Conv2dNode], bits: float) -> int:
    """Bytes of an artifact whose layers all have `bits` bits; between two widths, interpolated linearly."""
    nodes = list(nodes)
    lower = min(int(bits), 7)
    low, high = (sum(layer_bytes(node, width) for node in nodes) for width in (lower, lower + 1))
    return low + round((bits - lower) * (high - low))


def check_budget(nodes: Iterable[Conv2dNode], budget_bytes: int) -> None:
    """Raise InputError if a budget is below that of 1 bit in every layer."""
    least = uniform_bytes(nodes, min(WIDTHS))
    if budget_bytes < least:
        raise InputError(
            "byte budget", expected=f"at least {least} bytes, 1 bit in every layer", found=str(budget_bytes)
        )


def make_plan(
    nodes: Iterable[Conv2dNode],
    traces: dict[str, float],
    errors: dict[str, dict[int, float]],
    budget_bytes: int,
) -> Plan:
    """The plan that minimises sum_l trace_l * ||Q_b(W_l) - W_l||^2 under a byte budget.

    Raises InputError if the budget is below that of 1 bit in every layer.
    """
    nodes = list(nodes)
    choices = [
        LayerChoices(
            name=node.name,
            penalty={bits: traces[node.name] * errors[node.name][bits] for bits in WIDTHS},
            bytes={bits: layer_bytes(node, bits) for bits in WIDTHS},
        )
        for node in nodes
    ]
    return described_plan(nodes, allocate_bits(choices, budget_bytes), budget_bytes)


def described_plan(nodes: Iterable[Conv2dNode], widths: dict[str, int], budget_bytes: int | None) -> Plan:
    """A plan with its bytes and average width filled in."""
    nodes = list(nodes)
    weights = sum(node.weight_count for node in nodes)
    return Plan(
        layers=widths,
        budget_bytes=budget_bytes,
        bytes=sum(layer_bytes(node, widths[node.name]) for node in nodes),
        average_bits=sum(node.weight_count * widths[node.name] for node in nodes) / weights,
    )


def write_plan(folder: Path, plan: Plan) -> None:
    """Write a plan as `plan.json`."""
    write_atomically(folder / PLAN_FILE, plan.model_dump_json(indent=1) + "\n")


def read_plan(path: Path, nodes: Iterable[Conv2dNode]) -> Plan:
    """Read a plan for a network of these layers.

    Raises InputError naming the file if it is malformed, names an unknown layer or leaves one out.
    """
    plan = read_json(path, Plan, what="a plan")
    names = [node.name for node in nodes]
    for name in plan.layers:
        if name not in names:
            raise InputError(
                path, expected=f"layers of the network ({', '.join(names)})", found=f"unknown layer {name}"
            )
    for name in names:
        if name not in plan.layers:
            raise InputError(path, expected=f"a width for layer {name}", found="none")
    return plan
